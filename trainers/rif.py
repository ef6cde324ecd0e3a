"""RIF-RFT: RFT on those prompts alone that the policy's own rollouts say can teach it something.

Lai et al. 2025 (arXiv 2507.05386), "rollout-based instance filtering": before a task is learned,
the policy of its start writes ``filter_rollouts`` replies to each prompt; prompts that pass are
learned with plain RFT. There are two readings of what passes, both kept:

* ``solvable``, the authors' code (rollout_filter.py): at least one of the replies is right. Prompts
  that are always right stay, though they give no gradient. The code's grader knows right and wrong
  alone; where ours has degrees (one annotator in ten agrees), right is more than a half.
* ``informative``, the paper's text: the replies' rewards differ. Without variance there is no
  advantage, and no update.

The code asks every prompt; here prompts are asked in a random order until as many passed as the
stage will draw, which is a uniform draw from all that would pass. Prompts asked count in the budget
as prompts drawn, and under a budget half of it at most is spent on asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from cpt_bench.trainer import RewardParts, Stage, TrainSample
from cpt_bench.trainers.common import StageLog, Stopwatch
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.rollouts import RIGHT, Rollouts, graded, one_process, sift


class RIF(RFT):
    """RFT with rollout-based instance filtering."""

    class Config(RFT.Config):
        """Settings of :class:`RIF`.

        Attributes:
            keep: Which prompts pass; see the module.
            filter_rollouts: Replies a prompt by which it is judged, at temperature 1.
        """

        keep: Literal["solvable", "informative"] = "solvable"
        filter_rollouts: int = Field(default=8, ge=2)

    def select(self, stage: Stage, model: Any, log: StageLog) -> Sequence[TrainSample]:
        one_process("RIF-RFT")
        config = self.config
        rollouts = Rollouts(model.to(config.place()), stage, config, self.prefix(stage))

        def look(samples: Sequence[TrainSample]) -> list[TrainSample]:
            seed = stage.seed + log.asked  # another state for each block
            replies = rollouts.draw(samples, config.filter_rollouts, seed=seed)
            log.asked += len(samples)
            rewards = graded(stage, samples, replies)
            return [s for s, r in zip(samples, rewards, strict=True) if passes(config.keep, r)]

        budget = stage.budget.samples
        with Stopwatch(log):
            found = sift(
                stage.samples,
                look,
                wanted=config.draws(stage, config.prompts_per_step),
                allowed=budget // 2 if budget else None,
                seed=stage.seed,
            )
        return found.kept


def passes(rule: str, rewards: Sequence[RewardParts]) -> bool:
    """Whether a prompt whose replies earned ``rewards`` is learned."""
    if rule == "solvable":
        return any(r.accuracy > RIGHT for r in rewards)
    return len({r.total for r in rewards}) > 1
