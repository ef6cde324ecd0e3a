"""The settings of all parts; every TRL trainer has them, and all are off by default."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cpt_bench.trainer import Privileges, TrainerConfig


class PartSettings(TrainerConfig):
    """Settings of the parts.

    Attributes:
        replay: Samples of each task to store and to mix into later stages; this is the declared
            replay budget. See :mod:`cpt_bench.trainers.parts.replay`.
        replay_share: Share of the training prompts that are old ones, from the second task on.
        ewc: Weight of elastic weight consolidation's penalty; see
            :mod:`cpt_bench.trainers.parts.ewc`.
        ewc_decay: The Fisher information of earlier tasks is multiplied by this in each stage.
        ewc_samples: Prompts of a task on which its Fisher information is estimated.
        lwf: Weight of the divergence from the reference policy (learning without forgetting); see
            :mod:`cpt_bench.trainers.parts.lwf`.
        lwf_temperature: Softens both distributions of ``lwf``.
        reference: The policy that ``lwf`` and RFT's ``kl`` stay close to: that of the task's
            ``start``, or the ``base`` model of the run (which declares ``earlier_checkpoints``).
        olora: Makes the subspaces of the stages' adapters orthogonal, exactly (``project``) or by a
            ``penalty``; needs ``lora_rank``. See :mod:`cpt_bench.trainers.parts.olora`.
        olora_weight: Weight of that penalty.
        cpo: Weight of CPO's penalty on moving the weights that earlier tasks moved most; see
            :mod:`cpt_bench.trainers.parts.cpo`.
        cpo_share: Share of each tensor's weights that it holds, for each task.
        reset: What is reset when a task begins, from the second on: nothing (``off``), dormant
            units (``redo``), or queries' and keys' projections (``fire``); see
            :mod:`cpt_bench.trainers.parts.reset`.
        reset_threshold: A unit is dormant whose activity is at most this share of its layer's mean.
    """

    replay: int = Field(default=0, ge=0)
    replay_share: float = Field(default=0.5, gt=0, lt=1)
    ewc: float = Field(default=0.0, ge=0)
    ewc_decay: float = Field(default=1.0, ge=0, le=1)
    ewc_samples: int = Field(default=64, ge=1)
    lwf: float = Field(default=0.0, ge=0)
    lwf_temperature: float = Field(default=2.0, gt=0)
    reference: Literal["start", "base"] = "start"
    olora: Literal["off", "project", "penalty"] = "off"
    olora_weight: float = Field(default=0.5, gt=0)
    cpo: float = Field(default=0.0, ge=0)
    cpo_share: float = Field(default=0.1, gt=0, lt=1)
    reset: Literal["off", "redo", "fire"] = "off"
    reset_threshold: float = Field(default=0.1, ge=0)

    def declared(self, least: Privileges) -> Privileges:
        """``least``, and the privileges that these settings use beyond it."""
        reads_base = self.reference == "base" and (self.lwf > 0 or getattr(self, "kl", 0.0) > 0)
        return least.model_copy(
            update={
                "replay_samples_per_task": max(least.replay_samples_per_task, self.replay),
                "earlier_checkpoints": least.earlier_checkpoints or reads_base,
            }
        )
