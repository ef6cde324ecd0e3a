"""Qwen2.5-VL's layers for float32 on a CPU: the same numbers, up to rounding."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as stock

from cpt_bench.models.qwen_cpu import kernels, vision


class Norm(stock.Qwen2_5_VLRMSNorm):  # type: ignore[misc]
    """The root-mean-square norm as one step."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not kernels.fits(hidden_states):
            return super().forward(hidden_states)
        return kernels.rms_norm(hidden_states, self.weight, self.variance_epsilon)


class Attention(stock.Qwen2_5_VLAttention):  # type: ignore[misc]
    """Attention of grouped queries that does not copy keys and values for each query head."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> Any:
        eager = self.config._attn_implementation == "eager" and not self.sliding_window
        if not eager or self.attention_dropout or not kernels.fits(hidden_states):
            return super().forward(
                hidden_states,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
                **kwargs,
            )
        cos, sin = (table[:, None] for table in position_embeddings)
        query = kernels.rotated_heads(
            self.heads(self.q_proj(hidden_states)), cos, sin, self.scaling
        )
        keys, values = self.remembered(hidden_states, cos, sin, past_key_values)
        return self.o_proj(attend(query, keys, values, attention_mask)), None

    def heads(self, states: torch.Tensor) -> torch.Tensor:
        """The output of a projection as (rows, length, heads, width)."""
        return states.unflatten(-1, (-1, self.head_dim))

    def remembered(
        self, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, cache: Any
    ) -> Any:
        """Keys and values of ``states``, after those in ``cache``."""
        keys = kernels.rotated_heads(self.heads(self.k_proj(states)), cos, sin)
        values = self.heads(self.v_proj(states)).transpose(1, 2)
        return (keys, values) if cache is None else cache.update(keys, values, self.layer_idx)


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attention's output for each query, heads concatenated (rows, asked, heads * width).

    Args:
        query: Scaled queries (rows, heads, asked, width), contiguous.
        keys: (rows, groups, length, width); the heads of a group follow each other.
        values: In the same shape.
        mask: Added to the scores (rows, 1, asked, length); None adds nothing.
    """
    rows, heads, asked, width = query.shape
    groups, length = keys.shape[1:3]
    scores = query.view(rows, groups, -1, width) @ keys.transpose(2, 3)
    scores = scores.view(rows, heads, asked, length)
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1).view(rows, groups, -1, length)
    seen = (weights @ values).view(rows, heads, asked, width)
    return seen.transpose(1, 2).flatten(2)


def arrange(model: Any) -> Any:
    """Make a Qwen2.5-VL compute with these layers; a model of another kind is left as it is."""
    swaps = {
        stock.Qwen2_5_VLRMSNorm: Norm,
        stock.Qwen2_5_VLAttention: Attention,
        **vision.SWAPS,
    }
    for module in model.modules():
        # Only the class changes: weights and their names stay as they are.
        module.__class__ = swaps.get(type(module), type(module))
    return model
