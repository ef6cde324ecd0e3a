"""SFT on the policy's own right replies, drawn once or several times in a stage.

Two controls of "Retaining by Doing" (arXiv 2510.18874): Self-SFT imitates right replies of the
stage's start policy, drawn once; Iterative-SFT draws again from the current policy, for each epoch,
and comes close to RL. Both minimise -ln pi(y | x) over pairs with y ~ pi_k(. | x) and
reward(x, y) right (rejection sampling, RAFT: arXiv 2304.06767). ``rounds`` is how often replies are
drawn in a stage: 1 is Self-SFT, more is Iterative-SFT.

Prompts are asked in a random order until a round has the pairs that its steps will draw; of the
right replies to a prompt one is taken. If there are too few pairs, they are repeated. If there are
none, the policy stays as it is, or in a later round goes on learning from the round before. Prompts
that are asked count as drawn, and under a budget at most half of it is spent on asking.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.log import StageLog, Stopwatch
from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.policy import bare
from cpt_bench.trainers.rft import begins
from cpt_bench.trainers.rollouts import (
    RIGHT,
    Rollouts,
    asking_limit,
    graded,
    one_process,
    sift,
)
from cpt_bench.trainers.rows import chat_row
from cpt_bench.trainers.sft import SFT


class SelfSFT(SFT):
    """SFT on the policy's own filtered rollouts."""

    resumes = False  # what it has drawn, and what is left of that

    class Config(SFT.Config):
        """Settings of :class:`SelfSFT`.

        Attributes:
            rollouts: Replies drawn for each prompt; the first right one is learned.
            temperature: Temperature of the rollouts.
            begin: How rollouts begin: ``free``, ``direct`` or ``reasoning``.
            rounds: How often a stage draws its replies.
        """

        rollouts: int = Field(default=4, ge=1)
        temperature: float = Field(default=1.0, gt=0)
        begin: Literal["free", "direct", "reasoning"] = "free"
        rounds: int = Field(default=1, ge=1)

    def select(self, stage: Stage, model: Any, log: StageLog) -> Sequence[TrainSample]:
        self.unanswered = stage  # with replay's old prompts, which later rounds ask too
        return self.own(stage, stage.samples, model, log)

    def own(
        self, stage: Stage, samples: Sequence[TrainSample], model: Any, log: StageLog
    ) -> list[TrainSample]:
        """``samples`` with right replies of ``model`` as their targets, for one round."""
        one_process("SFT on own replies")
        config = self.config
        begin = begins(stage, config.begin)
        rollouts = Rollouts(model.to(config.place()), stage, config, begin)

        def judge(asked: Sequence[TrainSample]) -> list[TrainSample]:
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

        draws = config.prompts_in_stage(stage, config.batch_size)
        with Stopwatch(log):
            return sift(
                samples,
                judge,
                wanted=math.ceil(draws / config.rounds) if draws else None,
                allowed=asking_limit(stage, config.rounds),
                seed=stage.seed + log.asked,
            ).chosen

    def begin(self, stage: Stage, model: Any, log: StageLog) -> tuple[Stage, list[Part]]:
        chosen, parts = super().begin(stage, model, log)
        rounds = self.config.rounds
        limit = asking_limit(stage, rounds)
        if rounds > 1 and limit is not None and chosen.budget.samples is not None:
            # The later rounds will ask as many prompts again.
            left = chosen.budget.samples - limit * (rounds - 1)
            chosen = replace(chosen, budget=chosen.budget.model_copy(update={"samples": left}))
        return chosen, parts

    def adjust(self, trainer: Any, stage: Stage, log: StageLog) -> None:
        if self.config.rounds == 1:
            return
        pool = Pool(stage.samples, stage.seed)
        collate, fetch = trainer.data_collator, trainer.get_batch_samples
        # The loader runs ahead of the steps. So it only counts rows, and the batches of a step are
        # taken from the pool when the step begins.
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
    """SFT on the policy's own filtered rollouts, drawn several times in a stage."""

    class Config(SelfSFT.Config):
        """Settings of :class:`IterativeSFT`: those of SelfSFT, with more than one round."""

        rounds: int = Field(default=4, ge=2)


class Pool:
    """An endless supply of samples in random order."""

    def __init__(self, samples: Sequence[TrainSample], seed: int) -> None:
        self.rng = random.Random(seed)
        self.fill(samples)

    def fill(self, samples: Sequence[TrainSample]) -> None:
        """Replace all samples by ``samples``."""
        self.samples = list(samples)
        self.queue: list[TrainSample] = []

    def take(self, n: int) -> list[TrainSample]:
        """The next ``n`` samples; each comes once before any is repeated."""
        while len(self.queue) < n:
            self.queue += self.rng.sample(self.samples, len(self.samples))
        taken, self.queue = self.queue[:n], self.queue[n:]
        return taken
