"""RIF-RFT: RFT on the prompts that can teach the policy something, judged by its own rollouts.

Lai et al. 2025 (arXiv 2507.05386), "rollout-based instance filtering": before a task is learned,
the policy of its start writes ``filter_rollouts`` replies to each prompt; plain RFT learns from the
prompts that pass. Which prompts pass is read in two ways, and both are available:

* ``solvable``, the authors' code (rollout_filter.py): at least one of the replies is right. Prompts
  that are always right stay, though they give no gradient. The code's grader has only right and
  wrong; where ours has degrees (one annotator in ten agrees), right means more than a half.
* ``informative``, the paper's text: the rewards of the replies differ. Without variance there is no
  advantage and no update.

The code asks every prompt. Here prompts are asked in a random order until as many have passed as
the stage will draw, which is a uniform draw from all that would pass. Prompts that are asked count
as drawn, and under a budget at most half of it is spent on asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from cpt_bench.trainer import RewardParts, Stage, TrainSample
from cpt_bench.trainers.log import StageLog, Stopwatch
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.rollouts import (
    RIGHT,
    Rollouts,
    asking_limit,
    graded,
    one_process,
    sift,
)


class RIF(RFT):
    """RFT with rollout-based instance filtering."""

    class Config(RFT.Config):
        """Settings of :class:`RIF`.

        Attributes:
            keep: Which prompts pass; see the module.
            filter_rollouts: Replies to each prompt, at temperature 1, by which it is judged.
        """

        keep: Literal["solvable", "informative"] = "solvable"
        filter_rollouts: int = Field(default=8, ge=2)

    def select(self, stage: Stage, model: Any, log: StageLog) -> Sequence[TrainSample]:
        one_process("RIF-RFT")
        config = self.config
        rollouts = Rollouts(model.to(config.place()), stage, config, self.prefix(stage))

        def judge(samples: Sequence[TrainSample]) -> list[TrainSample]:
            seed = stage.seed + log.asked  # another state for each block
            replies = rollouts.draw(samples, config.filter_rollouts, seed=seed)
            log.asked += len(samples)
            rewards = graded(stage, samples, replies)
            return [s for s, r in zip(samples, rewards, strict=True) if passes(config.keep, r)]

        with Stopwatch(log):
            found = sift(
                stage.samples,
                judge,
                wanted=config.prompts_in_stage(stage, config.prompts_per_step),
                allowed=asking_limit(stage),
                seed=stage.seed,
            )
        return found.chosen


def passes(rule: str, rewards: Sequence[RewardParts]) -> bool:
    """Whether a prompt whose replies earned ``rewards`` passes."""
    if rule == "solvable":
        return any(r.accuracy > RIGHT for r in rewards)
    return len({r.total for r in rewards}) > 1
