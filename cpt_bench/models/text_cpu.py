"""The quick path of language models on a CPU: a beginning that prompts share is read once.

In a batch of one task's questions all begin with the same system turn and often with the same
words. The layers are transformers' own; :mod:`cpt_bench.models.quick` chooses this path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from cpt_bench.models.continuing import Decoder, Prefix, Reading, Scores

WORTH = 8
"""A beginning of fewer tokens than this is not worth a pass of its own."""

MODELS = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ATTENTION = ("eager", "sdpa")
"""Transformers' classes, and its implementations of attention that take any mask."""


class QuickText(NamedTuple):
    """See :class:`cpt_bench.models.quick.QuickModel`."""

    model: Any

    def read(self, inputs: dict[str, torch.Tensor]) -> Reading:
        decoder = Decoder(self.model.model, self.model.lm_head)
        return Reading(decoder, read(decoder, inputs))

    def score_answers(self, inputs: dict[str, torch.Tensor], length: int) -> Scores:
        names = ("input_ids", "attention_mask")
        prompts = {name: inputs[name][:, :-length] for name in names}
        replies, mask = (inputs[name][:, -length:] for name in names)
        return self.read(prompts).score(replies, mask, temperature=1.0)


def read(decoder: Decoder, inputs: dict[str, torch.Tensor]) -> Prefix:
    """Read the prompts of ``inputs``, which are padded on the left; their common beginning once."""
    tokens, mask = inputs["input_ids"], inputs["attention_mask"]
    cache, begin = DynamicCache(), common(tokens, mask)
    if begin:
        first = tokens[:1, int((mask[0] == 0).sum()) :][:, :begin]
        places = torch.arange(begin)[None]
        decoder.follow(decoder.embed(first), places, torch.ones_like(first), cache)
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(tokens), -1, -1, -1)
            layer.values = layer.values.expand(len(tokens), -1, -1, -1)
        # Padding stays on the left of what differs: column i is now column i + begin.
        left = mask.cumsum(-1) > begin
        tokens, rest = tokens[:, begin:], left[:, begin:].long()
        mask = torch.cat([torch.ones(len(tokens), begin, dtype=mask.dtype), rest], dim=1)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    hidden = decoder.follow(decoder.embed(tokens), places[:, begin:], mask, cache)
    keys, values = [x.keys for x in cache.layers], [x.values for x in cache.layers]
    return Prefix(hidden[:, -1], keys, values, mask, places[:, -1] + 1)


def common(tokens: torch.Tensor, mask: torch.Tensor) -> int:
    """How many tokens all rows begin with, but for each row's last one; 0 if it is not worth it.

    Args:
        tokens: Token ids (rows, length), padded on the left.
        mask: 1 for a token, 0 for padding (rows, length).
    """
    if len(tokens) == 1:
        return 0
    shortest = int(mask.sum(1).min())
    starts = (mask == 0).sum(1)
    heads = tokens.gather(1, starts[:, None] + torch.arange(shortest))[:, :-1]
    same = (heads == heads[0]).all(0).long().cumprod(0)
    found = int(same.sum())
    return found if found >= WORTH else 0


def quick_model(model: Any) -> QuickText | None:
    """The quick path of ``model``; None where it is not whole, in float32 and on a CPU."""
    if (
        type(model).__name__ not in MODELS
        or model.device.type != "cpu"
        or model.dtype != torch.float32
    ):
        return None
    windows = {*(getattr(model.config, "layer_types", None) or ())} - {"full_attention"}
    return (
        None if windows or model.config._attn_implementation not in ATTENTION else QuickText(model)
    )


def arrange_model(model: Any) -> Any:
    """The layers are transformers' own."""
    return model
