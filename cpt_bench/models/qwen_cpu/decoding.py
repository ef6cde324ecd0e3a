"""Reads prompts, and continues them, without what ``generate`` does around each step.

The arithmetic is that of transformers' Qwen2.5-VL, whose modules are called; only results that
nobody uses are left out: of a prompt's tokens the last layer computes keys and values, and the rest
for the last token alone. What follows a prompt is :mod:`cpt_bench.models.continuing`'s.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as stock

from cpt_bench.models import continuing
from cpt_bench.models.continuing import Prefix, Scores, scores
from cpt_bench.models.qwen_cpu.kernels import rotated_heads
from cpt_bench.models.qwen_cpu.layers import arrange, attend


def fits(model: Any) -> bool:
    """Whether ``model`` is a Qwen2.5-VL in float32 on a CPU, without adapters around it."""
    return (
        type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
        and model.device.type == "cpu"
        and model.dtype == torch.float32
        and model.model.language_model.config._attn_implementation == "eager"
    )


class _Reading(DynamicCache):  # type: ignore[misc]
    """Keys and values of texts of which only the last ``wanted`` hidden states are used."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted


class LastLayer(stock.Qwen2_5_VLDecoderLayer):  # type: ignore[misc]
    """The last layer: keys and values of all tokens, hidden states of the wanted ones alone."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        cache = kwargs.get("past_key_values")
        if not isinstance(cache, _Reading):
            return super().forward(hidden_states, *args, **kwargs)
        attention, end = self.self_attn, slice(-cache.wanted, None)
        cos, sin = (table[:, None] for table in kwargs["position_embeddings"])
        normed = self.input_layernorm(hidden_states)
        keys, values = attention.remembered(normed, cos, sin, cache)
        asked = attention.heads(attention.q_proj(normed[:, end]))
        query = rotated_heads(asked, cos[:, :, end], sin[:, :, end], attention.scaling)
        mask = kwargs["attention_mask"]
        seen = attend(query, keys, values, None if mask is None else mask[:, :, end])
        states = hidden_states[:, end] + attention.o_proj(seen)
        return states + self.mlp(self.post_attention_layernorm(states))


def _follow(
    model: Any, inputs: dict[str, Any], wanted: int
) -> tuple[torch.Tensor, _Reading, torch.Tensor]:
    """Run the model over ``inputs``.

    Returns:
        Last hidden states of the last ``wanted`` tokens (rows, wanted, width); the keys and values
        of all; the position after the last token of each row (rows,).
    """
    last = model.model.language_model.layers[-1]
    if type(last) is not LastLayer:
        arrange(model)  # a model that TRL loaded has transformers' layers
        # The class alone changes, and it acts only on a cache of the class above.
        last.__class__ = LastLayer
    mask, cache = inputs["attention_mask"], _Reading(wanted)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    following = positions[:, -1] + 1
    if inputs.get("pixel_values") is None:
        places = positions.expand(3, -1, -1)
    else:
        places, shift = _places(model, inputs)
        following = following + shift
    out = model.model(**inputs, position_ids=places, past_key_values=cache, use_cache=True)
    return out.last_hidden_state, cache, following


def _places(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (3, rows, length), and for each row the next position minus its length (rows,).

    They are computed once for rows with the same padding, the same pictures and as many words
    between them.
    """
    mask, kinds = inputs["attention_mask"], inputs["mm_token_type_ids"]
    grids, rows = inputs["image_grid_thw"], len(mask)
    first, which = list(range(rows)), torch.arange(rows)
    if len(grids) % rows == 0:
        of_row = grids.view(rows, -1, 3)
        merged = model.config.vision_config.spatial_merge_size**2
        if torch.equal(of_row.prod(-1).sum(1) // merged, (kinds == 1).sum(1)):
            looks = torch.cat([mask, kinds, of_row.flatten(1)], dim=1)
            kinds_of_row, which = torch.unique(looks, dim=0, return_inverse=True)
            first = [which.tolist().index(i) for i in range(len(kinds_of_row))]
            grids = of_row[first].flatten(0, 1)
    places, shift = model.model.get_rope_index(
        inputs["input_ids"][first],
        mm_token_type_ids=kinds[first],
        image_grid_thw=grids,
        attention_mask=mask[first],
    )
    return places[:, which], shift[which, 0]


def read(model: Any, inputs: dict[str, Any]) -> Prefix:
    """Read the prompts of ``inputs``, which the processor encoded and padded on the left."""
    hidden, cache, following = _follow(model, inputs, wanted=1)
    keys, values = [x.keys for x in cache.layers], [x.values for x in cache.layers]
    return Prefix(hidden[:, -1], keys, values, inputs["attention_mask"], following)


def score_answers(model: Any, inputs: dict[str, Any], length: int) -> Scores:
    """How likely the answers are that follow their prompts in ``inputs``, at temperature 1.

    Args:
        model: The model.
        inputs: Prompts padded on the left, then answers padded on the right.
        length: How many columns the answers take.
    """
    hidden, _, _ = _follow(model, inputs, wanted=length + 1)
    replies, mask = (inputs[name][:, -length:] for name in ("input_ids", "attention_mask"))
    return scores(Decoder(model), hidden[:, :-1], replies, mask, 1.0)


class Decoder(continuing.Decoder):
    """Words have one position, on all three axes."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.model.language_model, model.lm_head)

    def follow(
        self, states: torch.Tensor, places: torch.Tensor, mask: Any, cache: Any
    ) -> torch.Tensor:
        return super().follow(states, places.expand(3, -1, -1), mask, cache)

    def step(
        self, states: torch.Tensor, places: torch.Tensor, bias: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        return self.follow(states, places, {"full_attention": bias}, cache)
