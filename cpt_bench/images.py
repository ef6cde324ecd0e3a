"""Encoded image files to pixels, late and always 8-bit RGB.

Two rules hold for every picture, whatever asks for it:

* what is transparent is laid over white, as Qwen's own loader does;
* more than 8 bits a value are scaled to 8, by the range that :func:`_scaled` states.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cpt_bench.errors import CptBenchError

if TYPE_CHECKING:
    from PIL.Image import Image


BROKEN = (OSError, ValueError, SyntaxError)
"""What Pillow's decoders raise on broken data, apart from its own exceptions."""

TEXT_BYTES = 64 << 20
"""The most text or colour profile of a PNG that is unpacked; Pillow stops at 1 MiB, and real
pictures carry more."""

LONGEST_RATIO = 200
"""A picture may be so many times as long as it is wide: the limit of Qwen's processors."""

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of more than 8 bits a value; all of them are grey."""


def decode(data: bytes, where: object) -> Image:
    """The picture in ``data`` as RGB, fully read.

    Raises:
        CptBenchError: The bytes are no picture, or a broken one; ``where`` says whose.
    """
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT_BYTES
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in DEEP:
                return _scaled(image).convert("RGB")
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
            return image.convert("RGB")
    except (*BROKEN, Image.DecompressionBombError, UnidentifiedImageError) as error:
        raise CptBenchError(
            f"the image cannot be decoded ({len(data)} bytes: {error})",
            where=where,
            todo="Restore the file it came from",
        ) from None


def _scaled(image: Image) -> Image:
    """A grey picture of more than 8 bits a value as one of 8 bits.

    A 16-bit picture has the range 0 to 65535. Other numbers have the smallest of the ranges 0 to 1
    (floats alone), 0 to 255 and 0 to 65535 that holds all of them, else their own, from the least
    to the greatest. What is not a number is black.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    ranges = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    fitting = [top for top in ranges if low >= 0 and high <= top]
    bottom, top = (0.0, fitting[0]) if fitting else (low, high)
    shades = np.nan_to_num((values - bottom) * 255 / (top - bottom), posinf=255, neginf=0)
    return Image.fromarray(np.clip(np.rint(shades), 0, 255).astype(np.uint8))


def encode_ppm(pixels: bytes, width: int, height: int) -> bytes:
    """Raw RGB bytes as a PPM file: the one format whose bytes no encoder version changes."""
    return b"P6 %d %d 255\n" % (width, height) + pixels
