"""Decoding on a CPU, without what a general ``generate`` does around each step.

The arithmetic is that of transformers' Qwen2.5-VL, called layer by layer of its own modules; three
things are left out that cost a small model more than its matrices do. A prompt that several replies
begin with is read once. A reply that has ended leaves the batch. Keys and values are written into
tables of their final length instead of being copied at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

Pick = Callable[[torch.Tensor], torch.Tensor]
"""Next tokens (rows,) from logits (rows, words)."""

ENDED = 0.25
"""Share of rows that must have ended before they are taken out; taking out copies the rest."""


class Prefix(NamedTuple):
    """Prompts as read by the model.

    Attributes:
        hidden: Last hidden state of each prompt's last token (prompts, width).
        keys: A layer's keys (prompts, heads, length, width), one layer each.
        values: Its values, alike.
        mask: 1 for a token, 0 for padding, which is on the left (prompts, length).
        next: The position of the token that comes next (prompts,).
    """

    hidden: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    mask: torch.Tensor
    next: torch.Tensor

    def rows(self, which: torch.Tensor) -> Prefix:
        """Prompts ``which``, repeated or left out as it says."""
        keys, values = [t[which] for t in self.keys], [t[which] for t in self.values]
        return Prefix(self.hidden[which], keys, values, self.mask[which], self.next[which])


def fits(model: Any) -> bool:
    """Whether ``model`` is one that this module can decode: Qwen2.5-VL, whole, on a CPU."""
    return type(model).__name__ == "Qwen2_5_VLForConditionalGeneration" and (
        model.device.type == "cpu"
    )


def read(model: Any, inputs: dict[str, Any]) -> Prefix:
    """The prompts of ``inputs``, as the processor made them, padded on the left."""
    mask, cache = inputs["attention_mask"], DynamicCache()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    following = positions[:, -1] + 1
    if inputs.get("pixel_values") is None:
        places = positions.expand(3, -1, -1)
    else:
        places, shift = model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=mask,
        )
        following = following + shift[:, 0]
    out = model.model(**inputs, position_ids=places, past_key_values=cache, use_cache=True)
    keys, values = [x.keys for x in cache.layers], [x.values for x in cache.layers]
    return Prefix(out.last_hidden_state[:, -1], keys, values, mask, following)


class _Room:
    """Keys and values with room for what is to come, in the form the model's layers take."""

    def __init__(self, prefix: Prefix, more: int) -> None:
        self.length = prefix.mask.shape[1]
        self.tables = [
            [self._widen(table, more) for table in pair]
            for pair in zip(prefix.keys, prefix.values, strict=True)
        ]

    def _widen(self, table: torch.Tensor, more: int) -> torch.Tensor:
        rows, heads, length, width = table.shape
        wide = table.new_empty(rows, heads, length + more, width)
        wide[:, :, :length] = table
        return wide

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> Any:
        end = self.length + 1
        for table, new in zip(self.tables[layer], (keys, values), strict=True):
            table[:, :, self.length : end] = new
        return [table[:, :, :end] for table in self.tables[layer]]

    def keep(self, rows: torch.Tensor) -> None:
        self.tables = [[table[rows] for table in pair] for pair in self.tables]


@torch.no_grad()  # type: ignore[untyped-decorator]
def decode(
    model: Any,
    prefix: Prefix,
    most: int,
    pick: Pick,
    ends: Sequence[int],
    padding: int,
    watch: Callable[[torch.Tensor, torch.Tensor], None] = lambda rows, logits: None,
) -> torch.Tensor:
    """Continue each row of ``prefix`` until it ends.

    Args:
        model: The model that read the prefix.
        prefix: One row a reply.
        most: The most tokens of a reply.
        pick: Chooses each next token.
        ends: Tokens that end a reply.
        padding: What fills the rows behind their ends.
        watch: Told before each step which rows go on (rows,) and their logits (rows, words).

    Returns:
        Token ids (rows, ``most``), ends included.
    """
    text, head = model.model.language_model, model.lm_head
    replies = torch.full((len(prefix.hidden), most), padding)
    ending = torch.tensor(list(ends))
    room, going, place = _Room(prefix, most), torch.arange(len(replies)), prefix.next
    ended = torch.zeros(len(replies), dtype=torch.bool)
    bias = None
    if not bool(prefix.mask.all()):
        shut = torch.nn.functional.pad(prefix.mask == 0, (0, most))[:, None, None]
        bias = torch.zeros(shut.shape, dtype=prefix.hidden.dtype)
        bias = bias.masked_fill_(shut, torch.finfo(bias.dtype).min)
    hidden = prefix.hidden
    for step in range(most):
        logits = head(hidden)
        watch(going, logits)
        new = pick(logits).masked_fill_(ended, padding)
        replies[going, step] = new
        ended = ended | torch.isin(new, ending)
        if bool(ended.all()):
            break
        if float(ended.float().mean()) >= ENDED:
            left = (~ended).nonzero()[:, 0]
            going, new, place, ended = going[left], new[left], place[left], ended[left]
            bias = bias[left] if bias is not None else None
            room.keep(left)
        seen = None if bias is None else bias[..., : room.length + 1]
        out = text(
            inputs_embeds=text.embed_tokens(new)[:, None],
            position_ids=(place + step)[None, :, None].expand(3, -1, 1),
            attention_mask={"full_attention": seen},
            past_key_values=room,
            use_cache=True,
        )
        room.length += 1
        hidden = out.last_hidden_state[:, -1]
    return replies


def sampler(temperature: float, top_p: float = 1.0) -> Pick:
    """Draws from softmax(logits / temperature) within the nucleus ``top_p``; at 0 the largest."""
    if temperature == 0:
        return lambda logits: logits.argmax(-1)
    from transformers import TopPLogitsWarper

    nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None

    def pick(logits: torch.Tensor) -> torch.Tensor:
        scores = logits / temperature
        if nucleus is not None:
            scores = nucleus(None, scores)
        return torch.multinomial(scores.softmax(-1), 1)[:, 0]

    return pick
