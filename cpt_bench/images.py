"""Decodes image files to 8-bit RGB, only when they are needed.

Two rules hold for every picture:

* transparent pixels are blended with white, as in Qwen's own loader;
* more than 8 bits per value are scaled to 8, from the range that :func:`_scaled` defines.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cpt_bench.errors import CptBenchError

if TYPE_CHECKING:
    from PIL.Image import Image


BROKEN = (OSError, ValueError, SyntaxError)
"""Exceptions that Pillow's decoders raise on broken data, in addition to Pillow's own."""

TEXT_BYTES = 64 << 20
"""Limit for unpacking a PNG's text or colour profile; Pillow's limit is 1 MiB, and real pictures
have more."""

LONGEST_RATIO = 200
"""Maximal ratio of a picture's longer side to its shorter one: the limit of Qwen's processors."""

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes with more than 8 bits per value; all of them are grey."""


def decode(data: bytes, where: object) -> Image:
    """The picture in ``data`` as RGB, fully read.

    Raises:
        CptBenchError: The bytes are not a valid picture; ``where`` names its source.
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
    """Convert a grey picture with more than 8 bits per value to 8 bits.

    A 16-bit picture has the range 0 to 65535. For other types, the range is the smallest of 0 to 1
    (only for floats), 0 to 255 and 0 to 65535 that contains all values, else from their minimum to
    their maximum. NaN becomes black.
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
