"""Sizes: the real ones on a GPU, and tiny ones with which the same code is tested on a CPU."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import architecture
from cpt_bench.suite import open_suite


class Scale(NamedTuple):
    """What is measured at which size.

    Attributes:
        device: ``cuda`` or ``cpu``.
        facts: What ``config.json`` says of the model.
        pixels: Of pictures of questions; each question's is drawn from these.
        words: The fewest and the most tokens of a question's words; all as likely.
        written: Tokens of a reply.
        steps: Optimiser steps of a stage; the first is left out of the mean.
        asked: Questions of an evaluation.
        samples: Of a stage.
        settings: Over those of every recipe.
        patience: Seconds after which a run of nano is ended; None is never.
        nano: Trainers and dtypes of whole runs of nano.
        changes: Trainer to settings of those runs.
        limit: Samples of each split in them; None is all.
        replies: Nano questions whose replies are compared with the CPU's, for each of three tasks.
    """

    device: str
    facts: Mapping[str, Any]
    pixels: tuple[float, ...]
    words: tuple[int, int]
    written: int
    steps: int
    asked: int
    samples: int
    settings: Mapping[str, Any]
    patience: float | None
    nano: tuple[tuple[str, str], ...]
    changes: Mapping[str, tuple[str, ...]]
    limit: int | None
    replies: int

    def sizes(self, count: int) -> list[tuple[float, int]]:
        """Pixels and words of ``count`` questions, the same in each call."""
        draw = random.Random(0)
        return [(draw.choice(self.pixels), draw.randint(*self.words)) for _ in range(count)]


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


CPT7 = open_suite("cpt7")
# words: 100 on average, as a plan assumes. written: a plan's.
GPU = Scale(
    device="cuda",
    facts=architecture.REAL,
    pixels=tuple(CPT7.card(task).typical_pixels or 0 for task in CPT7.sequence),
    words=(20, 180),
    written=200,
    steps=5,
    asked=96,
    samples=256,
    settings={},
    patience=85,
    nano=(("sft", "float32"), ("rft", "float32"), ("sft", "bfloat16"), ("rft", "bfloat16")),
    changes={"sft": ("max_steps=20",), "rft": ("max_steps=20",)},
    limit=100,
    replies=100,
)
CPU = Scale(
    device="cpu",
    facts=architecture.TINY,
    pixels=(56 * 56, 84 * 84),
    words=(16, 32),
    written=6,
    steps=2,
    asked=4,
    samples=8,
    settings={"batch_size": 1, "gradient_accumulation": 1, "min_pixels": 56 * 56,
              "max_pixels": 84 * 84, "lora_rank": 2, "lora_alpha": 4, "rollouts": 2,
              "updates_per_generation": 1, "dtype": "float32", "ewc_samples": 1},
    patience=None,
    nano=(("sft", "float32"), ("rft", "bfloat16")),
    changes={
        "sft": ("max_steps=1", "batch_size=2"),
        "rft": ("max_steps=1", "prompts_per_step=1", "rollouts=2"),
    },
    limit=2,
    replies=2,
)  # fmt: skip
