"""Experience replay: store a few samples of each task, and mix them into all later stages.

Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning" (arXiv 1902.10486): a step
learns from new samples and from memory. Here ``replay_share`` of a stage's prompts are old, drawn
uniformly from the memory, which holds a uniform draw from each task's train split. Under SFT the
old samples' gold answers are learned, under RFT replies to them are rewarded; trainers that write
their own targets (``self-sft``) write them for the old prompts too, which is on-policy replay
(arXiv 2605.29495).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from cpt_bench.trainer import TrainSample
from cpt_bench.trainers.parts.part import Part


class Replay(Part):
    """Mixes in samples from the memory, and afterwards adds some of this task to it."""

    def mix(self, samples: Sequence[TrainSample]) -> Sequence[TrainSample]:
        old = self.stage.memory.samples()
        return mixed(samples, old, self.config.replay_share, self.stage.seed)

    def finish(self, trainer: Any) -> None:
        if not trainer.args.should_save:
            return  # one process writes
        own = list(self.stage.samples)
        drawn = random.Random(self.stage.seed).sample(own, min(self.config.replay, len(own)))
        self.stage.memory.add(drawn)


def mixed(
    new: Sequence[TrainSample], old: Sequence[TrainSample], share: float, seed: int
) -> list[TrainSample]:
    """All of ``new`` and enough of ``old``, repeated, to make up ``share`` of the whole."""
    if not old:
        return list(new)
    return [*new, *repeated(old, round(len(new) * share / (1 - share)), seed)]


def repeated(samples: Sequence[TrainSample], n: int, seed: int) -> list[TrainSample]:
    """``n`` of ``samples`` in random order; each comes once before any is repeated."""
    rng, out = random.Random(seed), list[TrainSample]()
    while len(out) < n:
        out += rng.sample(list(samples), len(samples))
    return out[:n]
