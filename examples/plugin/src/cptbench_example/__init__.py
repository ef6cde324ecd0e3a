"""Supervised fine-tuning that keeps a few samples of every task and mixes them in.

Experience replay (Chaudhry et al. 2019, arXiv 1902.10486) on top of the trainer that ships: what a
method adds is one subclass.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from pydantic import Field

from cpt_bench.trainer import Privileges, Stage
from cpt_bench.trainers.sft import SFT


class ReplaySFT(SFT):
    """SFT on the task's samples and on all that the memory holds, each kept sample repeated."""

    class Config(SFT.Config):
        """Settings of :class:`ReplaySFT`.

        Attributes:
            kept: Samples of each task to keep: the replay budget that is declared.
            weight: How often a kept sample stands in the mix.
        """

        kept: int = Field(default=100, ge=0)
        weight: int = Field(default=4, ge=1)

    @classmethod
    def declare(cls, config: Any) -> Privileges:
        return Privileges(replay_samples_per_task=config.kept)

    def train(self, stage: Stage) -> None:
        old = stage.memory.samples() * self.config.weight
        super().train(replace(stage, samples=[*stage.samples, *old]))
        kept = min(self.config.kept, len(stage.samples))
        stage.memory.add(random.Random(stage.seed).sample(list(stage.samples), kept))
