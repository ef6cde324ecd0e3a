"""Sizes: the real ones on a GPU, and tiny ones with which the same code is tested on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import architecture


class Scale(NamedTuple):
    """What is measured at which size.

    Attributes:
        device: ``cuda`` or ``cpu``.
        facts: What ``config.json`` says of the model.
        pixels: Of a picture of a question.
        words: Tokens of a question's words.
        written: Tokens of a reply.
        steps: Optimiser steps of a stage; the first is left out of the mean.
        asked: Questions of an evaluation.
        samples: Of a stage.
        settings: Over those of every recipe.
        nano: Trainers and dtypes of whole runs of nano.
        changes: Settings of those runs.
        limit: Samples of each split in them; None is all.
        replies: Nano questions whose replies are compared with the CPU's, for each of three tasks.
    """

    device: str
    facts: Mapping[str, Any]
    pixels: int
    words: int
    written: int
    steps: int
    asked: int
    samples: int
    settings: Mapping[str, Any]
    nano: tuple[tuple[str, str], ...]
    changes: tuple[str, ...]
    limit: int | None
    replies: int


class Place(NamedTuple):
    """Where a part works.

    Attributes:
        scale: The sizes.
        scratch: A folder that all parts of a run share: checkpoints lie in it.
        own: A folder of this part, empty at its start.
    """

    scale: Scale
    scratch: Path
    own: Path

    @property
    def model(self) -> Path:
        """The checkpoint with random weights."""
        return self.scratch / "model"

    @property
    def trained(self) -> Path:
        """The checkpoint that part ``sft`` writes."""
        return self.scratch / "sft" / "stage" / "out"


# pixels: the mean of cpt7's seven tasks by their cards, 513,143. words, written: a plan's.
GPU = Scale(
    device="cuda",
    facts=architecture.REAL,
    pixels=716 * 716,
    words=100,
    written=200,
    steps=5,
    asked=128,
    samples=256,
    settings={},
    nano=(("sft", "float32"), ("rft", "float32"), ("sft", "bfloat16"), ("rft", "bfloat16")),
    changes=("max_steps=20",),
    limit=100,
    replies=100,
)
CPU = Scale(
    device="cpu",
    facts=architecture.TINY,
    pixels=56 * 56,
    words=24,
    written=6,
    steps=2,
    asked=4,
    samples=8,
    settings={"batch_size": 1, "gradient_accumulation": 1, "min_pixels": 56 * 56,
              "max_pixels": 56 * 56, "lora_rank": 2, "lora_alpha": 4, "rollouts": 2,
              "updates_per_generation": 1, "dtype": "float32", "ewc_samples": 1},
    nano=(("sft", "float32"),),
    changes=("max_steps=1", "batch_size=2"),
    limit=2,
    replies=2,
)  # fmt: skip
