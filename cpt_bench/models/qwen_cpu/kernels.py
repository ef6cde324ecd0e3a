"""Norms and rotations as single steps, with their gradients in closed form, for float32 on a CPU.

Composed of PyTorch's operations, each passes over its tensor ten to twelve times, forward and
backward; written out, four to six times. Values and gradients are the same, up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def fits(states: torch.Tensor) -> bool:
    """Whether ``states`` are float32 on a CPU, as the functions here need them."""
    return bool(states.device.type == "cpu" and states.dtype == torch.float32)


def _scale(states: torch.Tensor, eps: float) -> torch.Tensor:
    """One over the root mean square of each row (..., 1)."""
    length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return length.square_().div_(states.shape[-1]).add_(eps).rsqrt_()


class _Norm(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        scale = _scale(states, eps)
        normed = states * scale
        ctx.save_for_backward(normed, weight, scale)
        return normed * weight

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        normed, weight, scale = ctx.saved_tensors
        both = grad * normed
        along = (both @ weight).unsqueeze_(-1).div_(-weight.shape[0])
        states = (grad * weight).addcmul_(normed, along).mul_(scale)
        return states, both.flatten(0, -2).sum(0), None


def rms_norm(states: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``weight * states / sqrt(mean(states², -1) + eps)``.

    Args:
        states: (..., width).
        weight: (width,).
        eps: Added to the mean square.
    """
    if torch.is_grad_enabled():
        out: torch.Tensor = _Norm.apply(states, weight, eps)
        return out
    return (states * _scale(states, eps)).mul_(weight)


def _rotate(
    states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, back: bool
) -> None:
    """Rotate the pairs (i, i + half) of ``states`` by their angles, or back, into ``out``."""
    half = states.shape[-1] // 2
    torch.mul(states, cos, out=out)
    first, second = states[..., :half], states[..., half:]
    # Both halves of the tables are the same angles.
    sin = sin[..., :half]
    out[..., :half].addcmul_(second, sin, value=1 if back else -1)
    out[..., half:].addcmul_(first, sin, value=-1 if back else 1)


class _Heads(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float
    ) -> torch.Tensor:
        if scale != 1:
            cos, sin = cos * scale, sin * scale
        ctx.save_for_backward(cos, sin)
        heads = states.transpose(1, 2)
        out = torch.empty_like(heads, memory_format=torch.contiguous_format)
        _rotate(heads, cos, sin, out, back=False)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        heads = grad.transpose(1, 2)
        out = torch.empty_like(heads, memory_format=torch.contiguous_format)
        _rotate(grad, cos, sin, out.transpose(1, 2), back=True)
        return out, None, None, None


def rotated_heads(
    states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float = 1.0
) -> torch.Tensor:
    """Rotary position embedding of ``states``, in the layout that attention needs.

    Args:
        states: Queries or keys (rows, length, heads, width).
        cos: Cosines (rows, 1, length, width); both halves of the width are the same.
        sin: Sines, in the same shape.
        scale: Multiplies the result.

    Returns:
        (rows, heads, length, width), contiguous.
    """
    out: torch.Tensor = _Heads.apply(states, cos, sin, scale)
    return out
