"""Muon: steps in which all directions of a weight matrix move equally; AdamW for the rest.

Jordan et al. 2024; for continual reinforcement in "Continual Reasoning Gym" (arXiv 2608.18574),
whose code and settings this follows. For a matrix W with gradient G:

    M <- 0.95 M + 0.05 G,   N = 0.05 G + 0.95 M  (Nesterov),
    W <- W - lr * 0.2 sqrt(max(rows, columns)) * NS(N),

NS the matrix made of five Newton-Schulz steps from N / |N|, whose singular values are near 1. The
factor makes a step as large as AdamW's, so that learning rates carry over. Embeddings, the head,
vectors, and matrices eight times longer than wide have AdamW with the same learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.999), 1e-8
LONGEST = 8.0
"""A matrix longer than this, over its other side, is left to AdamW."""


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Muon for hidden matrices, AdamW for all other weights.

    Args:
        named: Names and weights; those that are not trained are left out.
        learning_rate: Of both.
        weight_decay: Of both, decoupled.
    """

    def __init__(
        self, named: Iterable[tuple[str, torch.Tensor]], learning_rate: float, weight_decay: float
    ) -> None:
        groups: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for name, weight in named:
            if weight.requires_grad:
                groups[hidden(name, weight)].append(weight)
        super().__init__(
            [{"params": params, "matrices": kind} for kind, params in groups.items() if params],
            {"lr": learning_rate, "weight_decay": weight_decay},
        )

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                made = muon if group["matrices"] else adam
                update = made(weight.grad, self.state[weight])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.to(weight), alpha=-group["lr"])
        return loss


def hidden(name: str, weight: torch.Tensor) -> bool:
    """Whether a weight is a matrix inside the network, and not too long for Muon."""
    if weight.ndim != 2 or "embed" in name.lower() or "lm_head" in name.lower():
        return False
    return bool(max(weight.shape) <= LONGEST * min(weight.shape))


def muon(grad: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    """What is subtracted from a matrix for a learning rate of 1."""
    momentum = state.setdefault("momentum", torch.zeros_like(grad))
    momentum.lerp_(grad, 1 - MOMENTUM)
    update = newton_schulz(grad.lerp(momentum, MOMENTUM))
    return update * (0.2 * math.sqrt(max(grad.shape)))


def newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """``matrix`` with singular values between about 0.7 and 1.2: five steps of the quintic."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def adam(grad: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    """What AdamW subtracts from a weight for a learning rate of 1, decay aside."""
    first = state.setdefault("first", torch.zeros_like(grad))
    second = state.setdefault("second", torch.zeros_like(grad))
    state["step"] = state.get("step", 0) + 1
    first.lerp_(grad, 1 - BETAS[0])
    second.lerp_(grad.square(), 1 - BETAS[1])
    root = (second / (1 - BETAS[1] ** state["step"])).sqrt()
    return first / (1 - BETAS[0] ** state["step"]) / (root + EPSILON)
