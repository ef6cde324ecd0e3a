"""Chats and pictures to a batch, without what transformers' processor does around it.

The results are those of the processor, value by value. A chat is rendered and tokenized once for
all batches that contain it; pictures of one size are prepared together; a batch is padded as one
array. These functions cover batches as plain as those of nano's and cpt7's questions. For anything
else they return None, and transformers does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

REMEMBERED = 1 << 14
"""How many chats and texts are remembered; each takes a few hundred bytes."""

Turns = tuple[tuple[str, tuple[str | None, ...]], ...]
"""A chat: for each turn its role, and its parts in order: words, or None for a picture."""


def turns(chat: Sequence[Any]) -> Turns | None:
    """A chat of words and pictures; None for one that contains anything else."""
    out = []
    for turn in chat:
        content = turn.get("content")
        if len(turn) != 2 or "role" not in turn or not isinstance(content, list):
            return None
        parts: list[str | None] = []
        for part in content:
            if part["type"] == "image" and part.keys() <= {"type", "image"}:
                parts.append(None)
            elif part["type"] == "text" and len(part) == 2:
                parts.append(part["text"])
            else:
                return None
        out.append((turn["role"], tuple(parts)))
    return tuple(out)


@lru_cache(maxsize=REMEMBERED)
def rendered(processor: Any, template: str, chat: Turns, generation: bool) -> str:
    """A chat as ``template`` renders it; ``generation`` adds the prompt for a reply."""
    whole = [
        {
            "role": role,
            "content": [
                {"type": "image"} if part is None else {"type": "text", "text": part}
                for part in parts
            ],
        }
        for role, parts in chat
    ]
    text: str = ProcessorMixin.apply_chat_template(
        processor, whole, chat_template=template, add_generation_prompt=generation
    )
    return text


@lru_cache(maxsize=REMEMBERED)
def tokens(tokenizer: Any, text: str, special: bool) -> tuple[int, ...]:
    """The tokens of ``text``; ``special`` adds those that begin or end every text."""
    backend = tokenizer.backend_tokenizer
    # The tokenizer's own calls leave padding and truncation switched on here; each sets its own.
    if backend.padding is not None:
        backend.no_padding()
    if backend.truncation is not None:
        backend.no_truncation()
    return tuple(backend.encode(text, add_special_tokens=special).ids)


def pictures_of(images: Any, rows: int) -> list[list[Image]] | None:
    """Each row's pictures; None where they are not a list for each row, or not all RGB."""
    if images is None:
        return [[] for _ in range(rows)]
    if not isinstance(images, list) or len(images) != rows:
        return None
    plain = all(
        isinstance(row, list) and all(isinstance(i, Image) and i.mode == "RGB" for i in row)
        for row in images
    )
    return images if plain else None


def batch(
    processor: Any, texts: Sequence[str], images: Any, side: str, special: bool
) -> BatchFeature | None:
    """Texts and their pictures as ``processor`` encodes them, padded to the longest.

    Args:
        processor: Image processor and tokenizer.
        texts: One for each row, with an image token where a picture belongs.
        images: RGB pictures, a list for each row; None without pictures.
        side: Where rows are padded, ``left`` or ``right``.
        special: Whether to add the tokens that begin or end every text.

    Returns:
        ``input_ids``, ``attention_mask`` and ``mm_token_type_ids`` (rows, longest); with pictures
        also ``pixel_values`` (patches, features) and ``image_grid_thw`` (pictures, 3). None for a
        batch that is left to transformers.
    """
    shown = pictures_of(images, len(texts))
    if shown is None or any(text.count(processor.image_token) != len(row)
                            for text, row in zip(texts, shown, strict=True)):  # fmt: skip
        return None
    flat = [picture for row in shown for picture in row]
    data: dict[str, Any] = {}
    sizes: list[int] = []
    if flat:
        prepare = getattr(processor.image_processor, "alike", None)
        prepared = prepare(flat) if prepare is not None else None
        if prepared is None:
            return None
        merged = processor.image_processor.merge_size**2
        sizes = (prepared["image_grid_thw"].prod(-1) // merged).tolist()
        data = {name: torch.from_numpy(value) for name, value in prepared.items()}
    rows, at = [], 0
    for text, pictures in zip(texts, shown, strict=True):
        known = tokens(processor.tokenizer, text, special)
        rows.append(_widened(known, processor.image_token_id, sizes[at : at + len(pictures)]))
        at += len(pictures)
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), processor.tokenizer.pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), None) if side == "left" else slice(len(row))
        ids[i, place], mask[i, place] = row, 1
    kinds = (ids == processor.image_token_id) + 2 * (ids == processor.video_token_id)
    words = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds.astype(np.int64)}
    return BatchFeature({name: torch.from_numpy(x) for name, x in words.items()} | data)


def _widened(ids: Sequence[int], image: int, sizes: Sequence[int]) -> Sequence[int]:
    """``ids`` with each image token repeated as often as its picture has tokens."""
    if not sizes:
        return ids
    left = iter(sizes)
    out: list[int] = []
    for token in ids:
        out += [token] * next(left) if token == image else [token]
    return out
