"""How large pictures may be, and how many tokens they take, by family of models.

Families measure pictures differently. The Qwen-VL models count pixels and cut a picture into
squares of 28 or 32 pixels a side, each a token. Idefics3 and SmolVLM have a longest edge, cut into
tiles. Gemma 3 and LLaVA bring every picture to one size. A limit in pixels means something for the
first two, and is refused for all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cpt_bench.errors import CptBenchError

PIXELS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorPil", "Qwen2VLImageProcessorFast")
"""Image processors whose ``size`` holds the least and the most pixels."""
EDGES = ("Idefics3ImageProcessor", "SmolVLMImageProcessor")
"""Image processors whose ``size`` is a longest edge, brought to a multiple of a tile's."""

COUNTED = (
    "Gemma3Processor", "Idefics3Processor", "SmolVLMProcessor", "InternVLProcessor",
    "LlavaProcessor", "LlavaOnevisionProcessor",
)  # fmt: skip
"""Processors that can tell how many tokens a picture of some size takes. Those with a grid of
patches, as the Qwen-VL models have it, need not be asked."""
TILE = ("image_seq_len", "image_seq_length")
"""A processor's attribute for the image tokens of one tile."""


def full_size(processor: Any) -> Any:
    """The limits that a processor has, to be restored by :func:`restore_size`."""
    images = getattr(processor, "image_processor", None)
    return getattr(images, "size", None)


def restore_size(processor: Any, size: Any) -> None:
    """Give a processor the limits back that :func:`full_size` returned."""
    if size is not None:
        processor.image_processor.size = size


def limit_pixels(processor: Any, least: int | None, most: int | None) -> None:
    """Limit the pixels of the pictures that a processor prepares.

    Args:
        processor: The processor; changed in place.
        least: Smaller pictures are enlarged to so many pixels; None leaves the processor's limit.
        most: Larger pictures are shrunk to so many; None leaves the processor's limit.

    Raises:
        CptBenchError: The family's processor has no such limit.
    """
    given = {"min_pixels": least, "max_pixels": most}
    asked = {name: value for name, value in given.items() if value is not None}
    if not asked:
        return
    images: Any = getattr(processor, "image_processor", None)
    kind = type(images).__name__
    if kind in PIXELS:
        names = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        limits = {names[name]: value for name, value in asked.items()}
        images.size = type(images.size)(**{**dict(images.size), **limits})
        return
    if kind.removesuffix("Pil").removesuffix("Fast") in EDGES and [*asked] == ["max_pixels"]:
        images.size = type(images.size)(longest_edge=longest_edge(images, asked["max_pixels"]))
        return
    name, value = next(iter(asked.items()))
    why = f"{kind} has no such limit" if images is not None else "the model reads no pictures"
    raise CptBenchError(
        f"{name}={value} cannot be applied: {why}",
        where=type(processor).__name__,
        todo=f"Leave {name} out of the recipe, or give --set {name}=null",
    )


def longest_edge(images: Any, most: int) -> int:
    """The longest edge under which a square picture has at most ``most`` pixels, in whole tiles.

    Raises:
        CptBenchError: One tile has more.
    """
    tile = int(images.max_image_size["longest_edge"])
    tiles = math.isqrt(most) // tile
    if not tiles:
        raise CptBenchError(
            f"max_pixels={most} is less than one tile of {tile} x {tile} pixels",
            where=type(images).__name__,
            todo=f"Set max_pixels to {tile * tile} or more",
        )
    return tiles * tile


def token_of(model: Any) -> int | None:
    """The token that stands for a part of a picture; None where the model reads none.

    A rollout must not have it: a forward pass over prompt and reply looks for as many parts of
    pictures as there are such tokens.

    The model's config has it. A processor's ``image_token_id`` is, with Gemma 3, the token that
    stands for a whole picture until it is expanded.
    """
    token = getattr(model.config, "image_token_id", None)
    return None if token is None or token < 0 else int(token)


def places(processor: Any, inputs: Any, pictures: Sequence[Any]) -> int | None:
    """How many image tokens a prompt must have for its pictures; None where that is not known.

    Args:
        processor: The processor.
        inputs: What it made of the prompt.
        pictures: The prompt's pictures (PIL).
    """
    if not pictures:
        return 0
    if (grid := inputs.get("image_grid_thw")) is not None:
        return int((grid.prod(dim=1) // processor.image_processor.merge_size**2).sum())
    if type(processor).__name__ not in COUNTED:
        return None
    sizes = [(picture.height, picture.width) for picture in pictures]
    each = next((getattr(processor, name) for name in TILE if hasattr(processor, name)), None)
    if not hasattr(processor, "_get_num_multimodal_tokens"):  # SmolVLM's cannot tell, its tiles can
        tiles = (processor.image_processor.get_number_of_image_patches(*s, {})[0] for s in sizes)
        return int(sum(tiles) * (each or 0))
    counted = processor._get_num_multimodal_tokens(image_sizes=sizes)
    if each is None:
        return int(sum(counted["num_image_tokens"]))
    # With tiles, the tokens that separate them are counted too: those are no image tokens.
    return int(sum(counted["num_image_patches"]) * each)
