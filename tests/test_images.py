"""Pictures of every depth and transparency come out as the 8-bit RGB that a person sees."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cpt_bench.errors import CptBenchError
from cpt_bench.images import decode


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def pixels(data: bytes) -> Any:
    return np.asarray(decode(data, "it"))


# ------------------------------------------------------------------------------------ transparency


def writing(mode: str) -> Image.Image:
    """A black stroke on a transparent ground, left half; the ground's own colour is black."""
    alpha = np.zeros((4, 8), np.uint8)
    alpha[:, :4] = 255
    black = np.zeros((4, 8), np.uint8)
    channels = {"RGBA": [black, black, black, alpha], "LA": [black, alpha]}
    return Image.fromarray(np.dstack(channels[mode]), mode)


def palette(alpha: bool) -> Image.Image:
    """The same with a palette: entry 0 is the stroke, entry 1 the transparent ground."""
    image = Image.fromarray(np.array([[0] * 4 + [1] * 4] * 4, np.uint8), "P")
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = bytes([255, 0]) if alpha else 1
    return image


def keyed() -> Image.Image:
    """Without an alpha channel: one colour stands for transparent."""
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.paste((1, 2, 3), (4, 0, 8, 4))
    image.info["transparency"] = (1, 2, 3)
    return image


def grey_keyed() -> Image.Image:
    image = Image.new("L", (8, 4), 0)
    image.paste(7, (4, 0, 8, 4))
    image.info["transparency"] = 7
    return image


TRANSPARENT: dict[str, Callable[[], bytes]] = {
    "RGBA png": lambda: encoded(writing("RGBA"), "PNG"),
    "LA png": lambda: encoded(writing("LA"), "PNG"),
    "RGBA webp": lambda: encoded(writing("RGBA"), "WEBP", lossless=True),
    "RGBA tiff": lambda: encoded(writing("RGBA"), "TIFF"),
    "palette png": lambda: encoded(palette(True), "PNG", transparency=bytes([255, 0])),
    "palette png, one entry": lambda: encoded(palette(False), "PNG", transparency=1),
    "palette gif": lambda: encoded(palette(False), "GIF", transparency=1),
    "a colour key": lambda: encoded(keyed(), "PNG", transparency=(1, 2, 3)),
    "a grey key": lambda: encoded(grey_keyed(), "PNG", transparency=7),
}


@pytest.mark.parametrize("what", TRANSPARENT)
def test_what_is_transparent_is_white(what: str) -> None:
    found = pixels(TRANSPARENT[what]())
    assert (found[:, :4] == 0).all(), "the stroke"
    assert (found[:, 4:] == 255).all(), "the ground"


def test_half_transparent_is_half_white() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert pixels(encoded(image, "PNG")).tolist() == [[[127] * 3] * 2] * 2


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK", "YCbCr"])
def test_what_is_not_transparent_stays(mode: str) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5).convert(mode)
    data = encoded(image, "TIFF")
    assert (pixels(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


# ------------------------------------------------------------------------------------------- depth


DEEP: dict[str, tuple[Any, str, list[int]]] = {
    "16-bit grey png": (np.array([[0, 257, 32896, 65535]], np.uint16), "PNG", [0, 1, 128, 255]),
    "16-bit grey tiff": (np.array([[0, 25700, 65535]], np.uint16), "TIFF", [0, 100, 255]),
    "12 bits in 16": (np.array([[0, 4095]], np.uint16), "TIFF", [0, 16]),
    "32-bit of 8 bits": (np.array([[0, 100, 255]], np.int32), "TIFF", [0, 100, 255]),
    "32-bit of 16 bits": (np.array([[0, 25700, 65535]], np.int32), "TIFF", [0, 100, 255]),
    "32-bit": (np.array([[0, 500000, 1000000]], np.int32), "TIFF", [0, 128, 255]),
    "32-bit, negative": (np.array([[-100, 0, 100]], np.int32), "TIFF", [0, 128, 255]),
    "float to 1": (np.array([[0, 0.2, 1]], np.float32), "TIFF", [0, 51, 255]),
    "float to 255": (np.array([[0, 51, 255]], np.float32), "TIFF", [0, 51, 255]),
    "float, any": (np.array([[-2, 0, 2]], np.float32), "TIFF", [0, 128, 255]),
    "float with holes": (np.array([[np.nan, 0.4, np.inf]], np.float32), "TIFF", [0, 102, 255]),
    "float, all the same": (np.array([[0.5, 0.5]], np.float32), "TIFF", [128, 128]),
    "black": (np.zeros((1, 2), np.uint16), "PNG", [0, 0]),
}


@pytest.mark.parametrize("what", DEEP)
def test_deep_pictures_are_scaled(what: str) -> None:
    values, format, wanted = DEEP[what]
    found = pixels(encoded(Image.fromarray(values), format))
    assert found.shape == (*values.shape, 3)
    assert found[0, :, 0].tolist() == wanted and (found[..., :1] == found).all()


# ------------------------------------------------------------------------------- long text, broken


@pytest.mark.parametrize("where", ["text", "compressed text", "profile"])
def test_a_png_with_three_megabytes_that_are_no_pixels(where: str) -> None:
    info = PngImagePlugin.PngInfo()
    options: dict[str, Any] = {"pnginfo": info}
    if where == "profile":
        options["icc_profile"] = bytes(3 << 20)
    else:
        info.add_text("notes", "x" * (3 << 20), zip=where == "compressed text")
    data = encoded(Image.new("RGB", (2, 2), (9, 8, 7)), "PNG", **options)
    assert pixels(data).tolist() == [[[9, 8, 7]] * 2] * 2


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_picture_is_named(data: bytes) -> None:
    with pytest.raises(CptBenchError, match=r"^sample 7: the image cannot be decoded"):
        decode(data, "sample 7")
