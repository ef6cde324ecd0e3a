"""Encoded image files to pixels, late and always RGB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cpt_bench.errors import CptBenchError

if TYPE_CHECKING:
    from PIL.Image import Image


BROKEN = (OSError, ValueError, SyntaxError)
"""What Pillow's decoders raise on broken data, beside its own exceptions."""


def decode(data: bytes, where: object) -> Image:
    """The picture in ``data`` as RGB, fully read.

    Raises:
        CptBenchError: The bytes are no picture, or a broken one; ``where`` says whose.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (*BROKEN, Image.DecompressionBombError, UnidentifiedImageError) as error:
        raise CptBenchError(
            f"the image cannot be decoded ({len(data)} bytes: {error})",
            where=where,
            todo="Restore the file it came from",
        ) from None


def encode_ppm(pixels: bytes, width: int, height: int) -> bytes:
    """Raw RGB bytes as a PPM file: the one format whose bytes no encoder version changes."""
    return b"P6 %d %d 255\n" % (width, height) + pixels
