"""RaPO: GRPO with a second reward for staying near the last task's policy.

Lou et al. 2026, "Overcoming Catastrophic Forgetting in Visual Continual Learning with Reinforcement
Fine-Tuning" (arXiv 2605.09640), eq. 2 to 6. For a rollout y of n tokens,

    d      = max(0, 1/n sum_t [ ln pi(y_t) - ln pi_anchor(y_t) ])          drift of a trajectory
    R      = R_task + retention * exp(-drift_scale * d)                    retention reward
    sigma <- ctan_decay * sigma + (1 - ctan_decay) * std(R of the batch)   once a batch of rollouts
    A      = (R - mean of the prompt's rollouts) / sigma                   cross-task normalisation

with pi_anchor the policy of the task's start, no gradient through R, retention from the second task
on, and sigma carried over from task to task (in ``stage.state``). The paper's values are retention
0.5, drift_scale 20, ctan_decay 0.999 and 8 rollouts. A batch of rollouts is an optimiser step's,
unless ``updates_per_generation`` makes several of it.

Reconstructed: the equations are taken from an independent audit of the paper and from the authors'
code (repository LMMMEng/RaPO), not from the paper's own pages. Where those differ, this follows the
equations: the code restarts sigma in each task from the last batch of the one before, warms its
decay up, and falls back to GRPO where an advantage exceeds 5; none of that is done here. Both leave
open sigma before the first batch (here: the first batch whose rewards differ) and the estimator of
its standard deviation (here: over the rollouts of all processes, with n - 1). The code adds a KL
penalty of 0.002 towards the base model; here ``kl`` and ``reference`` do that, off by default (the
recipe for cpt7 has rft's, 0.01 towards the task's start).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from trl.trainer.utils import add_fused_lm_head

from cpt_bench.files import read_json, write_json
from cpt_bench.trainer import Stage
from cpt_bench.trainers.log import StageLog
from cpt_bench.trainers.parts.frozen import Frozen
from cpt_bench.trainers.rft import RFT, SharedGRPO

STORE = "rapo.json"
VISION = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids", "token_type_ids")


class RaPO(RFT):
    """Retention-aware policy optimisation."""

    resumes = False  # the running scale of rewards

    class Config(RFT.Config):
        """Settings of :class:`RaPO`.

        Attributes:
            retention: Weight of the retention reward; 0 leaves it out.
            drift_scale: How fast the retention reward falls with the drift, in nats per token.
            ctan_decay: Decay of the running standard deviation of rewards.
        """

        retention: float = Field(default=0.5, ge=0)
        drift_scale: float = Field(default=20.0, gt=0)
        ctan_decay: float = Field(default=0.999, ge=0, lt=1)

        @model_validator(mode="after")
        def _on_grpo(self) -> RaPO.Config:
            if self.algorithm != "grpo":
                raise ValueError("RaPO is a form of GRPO: set algorithm=grpo")
            if self.sharding != "none" or self.deepspeed:
                raise ValueError(
                    "RaPO needs a whole anchor model: set sharding=none, and lora_rank to fit a GPU"
                )
            return self

    def trainer_class(self) -> type[SharedGRPO]:
        return RaPOTrainer

    def adjust(self, trainer: Any, stage: Stage, log: StageLog) -> None:
        trainer.prepare(self.config, stage)


class RaPOTrainer(SharedGRPO):
    """GRPO whose rewards and advantages are replaced by RaPO's."""

    def prepare(self, config: Any, stage: Stage) -> None:
        """Load the scale of earlier tasks, and from the second task on the anchor."""
        self.settings = config
        self.scale = Scale(stage.state / STORE, config.ctan_decay)
        self.anchor: Frozen | None = None
        if stage.index > 1 and config.retention:
            self.anchor = Frozen(self, config, stage.policy)
            if self.anchor.copy is not None:
                add_fused_lm_head(self.anchor.copy, temperature=self.temperature)

    def _calculate_rewards(self, *args: Any) -> Any:
        rewards = super()._calculate_rewards(*args)
        self._task_rewards = rewards.nansum(dim=1)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        rewards = self._task_rewards
        if self.anchor is not None:
            drift = self.accelerator.gather(self._drift(batch))
            retained = retention_reward(drift, self.settings.drift_scale)
            rewards = rewards + self.settings.retention * retained
            self._metrics["train"]["drift"].append(float(drift.mean()))
            self._metrics["train"]["retention_reward"].append(float(retained.mean()))
        groups = rewards.view(-1, self.num_generations)
        advantages = self.scale.advantages(groups).flatten()
        self._metrics["train"]["reward_scale"].append(self.scale.sigma or 0.0)
        start = self.accelerator.process_index * len(inputs)
        batch["advantages"] = advantages[start : start + len(inputs)].to(batch["advantages"])
        if self.accelerator.is_main_process:
            self.scale.save()
        return batch

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _drift(self, batch: dict[str, Any]) -> torch.Tensor:
        assert self.anchor is not None
        mask = batch["completion_mask"]
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attention = torch.cat([batch["prompt_mask"], mask], dim=1)
        vision = {key: batch[key] for key in VISION if key in batch}

        def logps(model: Any) -> torch.Tensor:
            size = self.args.per_device_train_batch_size
            scored = self._get_per_token_logps_and_entropies(
                model, ids, attention, mask.shape[1], batch_size=size, **vision
            )
            return scored[0]

        ours = batch.get("old_per_token_logps")
        ours = logps(self.model) if ours is None else ours
        if self.anchor.copy is not None:
            return drift(ours, logps(self.anchor.copy), mask)
        with self.anchor.policy():
            return drift(ours, logps(self.model), mask)


def drift(ours: torch.Tensor, anchor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Eq. 2: the mean log-ratio of a rollout's tokens, where positive; all of shape (rollouts, n).

    The mean is taken first and cut off at zero after it: single tokens may be negative.
    """
    mean = ((ours - anchor) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return mean.clamp(min=0.0)


def retention_reward(drift: torch.Tensor, scale: float) -> torch.Tensor:
    """Eq. 3: exp(-scale * drift), in (0, 1]."""
    return torch.exp(-scale * drift)


class Scale:
    """The running standard deviation of rewards, across batches and tasks.

    Args:
        file: The file in which it is stored between stages.
        decay: Weight of the previous value, in [0, 1).
    """

    EPSILON = 1e-6

    def __init__(self, file: Path, decay: float) -> None:
        self.file, self.decay = file, decay
        self.sigma: float | None = read_json(file)["sigma"] if file.exists() else None

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Eq. 5 and 6: update the scale with a batch, and divide by it.

        Args:
            rewards: Shape (prompts, rollouts).

        Returns:
            What each reward exceeds its prompt's mean by, in units of the scale; the same shape.
        """
        now = float(rewards.std())
        if self.sigma is not None:
            self.sigma = self.decay * self.sigma + (1 - self.decay) * now
        elif now > 0:
            self.sigma = now
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        return centred / ((self.sigma or 1.0) + self.EPSILON)

    def save(self) -> None:
        """Write the scale to its file, unless no batch had different rewards yet."""
        if self.sigma is not None:
            write_json(self.file, {"sigma": self.sigma})
