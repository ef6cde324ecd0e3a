"""SFT on the policy's own replies, those that are right: drawn once, or drawn again on the way.

Two controls of "Retaining by Doing" (arXiv 2510.18874): Self-SFT imitates right replies of the
stage's start policy, drawn once; Iterative-SFT draws anew from the current policy, an epoch at a
time, and comes close to RL. Both minimise -ln pi(y | x) over pairs with y ~ pi_k(. | x) and
reward(x, y) right (rejection sampling, RAFT: arXiv 2304.06767). ``rounds`` is how often replies are
drawn in a stage: 1 is Self-SFT, more is Iterative-SFT.

Prompts are asked in a random order until each round has the pairs its steps will draw; of the right
replies to a prompt one is taken. Too few are repeated; where none is right the policy is passed on,
or in a later round goes on learning from the round before. Prompts asked count in the budget, and
under a budget half of it at most is spent on asking.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field
from trl import SFTTrainer

from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.common import StageLog, Stopwatch, chat_row
from cpt_bench.trainers.parts.part import bare
from cpt_bench.trainers.rft import begins
from cpt_bench.trainers.rollouts import RIGHT, Rollouts, graded, one_process, sift
from cpt_bench.trainers.sft import SFT


class SelfSFT(SFT):
    """SFT on the policy's own filtered rollouts."""

    class Config(SFT.Config):
        """Settings of :class:`SelfSFT`.

        Attributes:
            rollouts: Replies a prompt that are drawn; the first right one is learned.
            temperature: Of the rollouts.
            begin: How they begin: ``free``, ``direct`` or ``reasoning``.
            rounds: How often a stage draws its replies.
        """

        rollouts: int = Field(default=4, ge=1)
        temperature: float = Field(default=1.0, gt=0)
        begin: Literal["free", "direct", "reasoning"] = "free"
        rounds: int = Field(default=1, ge=1)

    def select(self, stage: Stage, model: Any, log: StageLog) -> Sequence[TrainSample]:
        self.unanswered = stage  # replay's old prompts among them: later rounds ask those too
        return self.own(stage, stage.samples, model, log)

    def own(
        self, stage: Stage, samples: Sequence[TrainSample], model: Any, log: StageLog
    ) -> list[TrainSample]:
        """``samples`` with right replies of ``model`` as their targets, for one round."""
        one_process("SFT on own replies")
        config = self.config
        begin = begins(stage, config.begin)
        rollouts = Rollouts(model.to(config.place()), stage, config, begin)

        def look(asked: Sequence[TrainSample]) -> list[TrainSample]:
            seed = stage.seed + log.asked
            texts = rollouts.draw(asked, config.rollouts, seed=seed, temperature=config.temperature)
            log.asked += len(asked)
            rewards = graded(stage, asked, texts)
            pairs = zip(asked, texts, rewards, strict=True)
            right = [
                (s, [t for t, r in zip(ts, rs, strict=True) if r.accuracy > RIGHT])
                for s, ts, rs in pairs
            ]
            return [replace(s, target=ts[0]) for s, ts in right if ts]

        draws, budget = config.draws(stage, config.batch_size), stage.budget.samples
        with Stopwatch(log):
            return sift(
                samples,
                look,
                wanted=math.ceil(draws / config.rounds) if draws else None,
                allowed=budget // (2 * config.rounds) if budget else None,
                seed=stage.seed + log.asked,
            ).kept

    def begin(self, stage: Stage, model: Any, log: StageLog) -> Any:
        chosen, parts = super().begin(stage, model, log)
        if self.config.rounds > 1 and chosen.budget.samples is not None:
            # The rounds to come ask as much again: it is set aside.
            aside = stage.budget.samples // (2 * self.config.rounds) * (self.config.rounds - 1)
            left = chosen.budget.model_copy(update={"samples": chosen.budget.samples - aside})
            chosen = replace(chosen, budget=left)
        return chosen, parts

    def adjust(self, trainer: SFTTrainer, stage: Stage, log: StageLog) -> None:
        if self.config.rounds == 1:
            return
        pool = Pool(stage.samples, stage.seed)
        collate, fetch = trainer.data_collator, trainer.get_batch_samples
        # The loader is ahead of the steps; so it only counts, and a step's batches are made of the
        # pool when the step comes.
        trainer.data_collator = len

        def made(size: int) -> dict[str, Any]:
            return dict(collate([chat_row(s, s.target) for s in pool.take(size)]))

        def batches(sizes: Iterator[int], *args: Any) -> Any:
            done = trainer.state.global_step
            if done and done % math.ceil(trainer.state.max_steps / self.config.rounds) == 0:
                found = self.own(self.unanswered, self.unanswered.samples, bare(trainer), log)
                if found:
                    pool.fill(found)
            return fetch(map(made, sizes), *args)

        trainer.get_batch_samples = batches


class IterativeSFT(SelfSFT):
    """SFT on the policy's own filtered rollouts, drawn again on the way."""

    class Config(SelfSFT.Config):
        """Settings of :class:`IterativeSFT`: those of SelfSFT, with more than one round."""

        rounds: int = Field(default=4, ge=2)


class Pool:
    """Samples in a random order, without end."""

    def __init__(self, samples: Sequence[TrainSample], seed: int) -> None:
        self.rng = random.Random(seed)
        self.fill(samples)

    def fill(self, samples: Sequence[TrainSample]) -> None:
        """Forget what was left, go on with ``samples``."""
        self.samples = list(samples)
        self.queue: list[TrainSample] = []

    def take(self, n: int) -> list[TrainSample]:
        """The next ``n``; each sample once before any comes again."""
        while len(self.queue) < n:
            self.queue += self.rng.sample(self.samples, len(self.samples))
        taken, self.queue = self.queue[:n], self.queue[n:]
        return taken
