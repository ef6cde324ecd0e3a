"""The policy that a stage stays close to, frozen: a second model, or the same without adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cpt_bench.models.checkpoint import load_model
from cpt_bench.trainer import Stage


def reference_policy(config: Any, stage: Stage) -> Path:
    """The checkpoint that ``config.reference`` names: the task's start, or the run's base."""
    return stage.earlier[0] if config.reference == "base" else stage.policy


class Frozen:
    """A frozen policy, in addition to the one that is trained.

    Where adapters are trained and the reference is the task's start, it is the same model with its
    adapters switched off, and no second one is loaded.

    Args:
        trainer: TRL's trainer.
        config: The trainer's settings.
        policy: The checkpoint of the frozen policy.
    """

    def __init__(self, trainer: Any, config: Any, policy: Path) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        self.adapted = model if hasattr(model, "disable_adapter") else None
        self.copy: Any = None
        if self.adapted is None:
            device = str(trainer.accelerator.device)
            self.copy = load_model(
                policy, device=device, dtype=config.dtype, attention=config.attention
            )
            self.copy.eval().requires_grad_(False)

    @contextlib.contextmanager
    def policy(self) -> Iterator[Any]:
        """The frozen transformers model, without gradients."""
        with torch.no_grad():
            if self.adapted is None:
                yield self.copy
            else:
                with self.adapted.disable_adapter():
                    yield self.adapted.get_base_model()
