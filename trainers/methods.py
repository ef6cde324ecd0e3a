"""Methods that are SFT or RFT with one part switched on.

The part's own file describes what it does, with its paper and equation; here each method only gives
the setting of its part another default. Every part also works under any other trainer
(``--trainer rft --set replay=100 --set ewc=1000``).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT


class Replay(SFT):
    """SFT with experience replay: :mod:`cpt_bench.trainers.parts.replay`."""

    class Config(SFT.Config):
        """Settings of :class:`Replay`: those of SFT, with ``replay`` on."""

        replay: int = Field(default=100, ge=1)


class ReplayRFT(RFT):
    """RFT with experience replay: :mod:`cpt_bench.trainers.parts.replay`."""

    class Config(RFT.Config):
        """Settings of :class:`ReplayRFT`: those of RFT, with ``replay`` on."""

        replay: int = Field(default=100, ge=1)


class PromptReplayRFT(ReplayRFT):
    """RFT with replay by pass rate: :mod:`cpt_bench.trainers.parts.promptreplay`."""

    class Config(ReplayRFT.Config):
        """Settings of :class:`PromptReplayRFT`: ReplayRFT's, with the choice by pass rate."""

        replay_choice: Literal["pass_rate"] = "pass_rate"


class GSPO(RFT):
    """RFT with the probability ratios of whole replies (Zheng et al. 2025, arXiv 2507.18071).

    s = (pi(y | x) / pi_old(y | x))^(1/|y|) is clipped to [1 - ``clip``, 1 + ``clip_high``], with
    the paper's limits, a thousand times narrower than those of a token's ratio; its advantage is
    GRPO's. With one update a generation s is 1 and GSPO is GRPO.
    """

    class Config(RFT.Config):
        """Settings of :class:`GSPO`: those of RFT, with ``ratio`` on."""

        ratio: Literal["sequence"] = "sequence"
        clip: float = Field(default=3e-4, gt=0)
        clip_high: float | None = Field(default=4e-4, gt=0)
        updates_per_generation: int = Field(default=4, ge=1)


class CPO(GSPO):
    """GSPO that holds what earlier tasks moved most: :mod:`cpt_bench.trainers.parts.cpo`."""

    class Config(GSPO.Config):
        """Settings of :class:`CPO`: those of GSPO, with ``cpo`` on."""

        cpo: float = Field(default=100.0, gt=0)


class ReDoRFT(RFT):
    """RFT with dormant units initialised again: :mod:`cpt_bench.trainers.parts.reset`."""

    class Config(RFT.Config):
        """Settings of :class:`ReDoRFT`: those of RFT, with ``reset`` on."""

        reset: Literal["redo"] = "redo"


class FireRFT(RFT):
    """RFT with orthogonal queries and keys at each start: :mod:`cpt_bench.trainers.parts.reset`."""

    class Config(RFT.Config):
        """Settings of :class:`FireRFT`: those of RFT, with ``reset`` on."""

        reset: Literal["fire"] = "fire"


class MuonRFT(RFT):
    """RFT with Muon's steps: :mod:`cpt_bench.trainers.muon`."""

    class Config(RFT.Config):
        """Settings of :class:`MuonRFT`: those of RFT, with ``optimizer`` on."""

        optimizer: Literal["muon"] = "muon"


class EWC(SFT):
    """SFT with elastic weight consolidation: :mod:`cpt_bench.trainers.parts.ewc`."""

    class Config(SFT.Config):
        """Settings of :class:`EWC`: those of SFT, with ``ewc`` on."""

        ewc: float = Field(default=1e3, gt=0)


class EWCRFT(RFT):
    """RFT with elastic weight consolidation: :mod:`cpt_bench.trainers.parts.ewc`."""

    class Config(RFT.Config):
        """Settings of :class:`EWCRFT`: those of RFT, with ``ewc`` on."""

        ewc: float = Field(default=1e3, gt=0)


class LwF(SFT):
    """SFT with distillation from the last policy: :mod:`cpt_bench.trainers.parts.lwf`."""

    class Config(SFT.Config):
        """Settings of :class:`LwF`: those of SFT; at ``lwf`` 0 it is SFT."""

        lwf: float = Field(default=1.0, ge=0)


class LwFRFT(RFT):
    """RFT with distillation from the last policy: :mod:`cpt_bench.trainers.parts.lwf`."""

    class Config(RFT.Config):
        """Settings of :class:`LwFRFT`: those of RFT; at ``lwf`` 0 it is RFT."""

        lwf: float = Field(default=1.0, ge=0)


class KLRFT(RFT):
    """RFT with a KL penalty in its loss, towards the task's start or the base model.

    Shao et al. 2024 (arXiv 2402.03300, eq. 3 and 4): ``kl`` times the estimate
    ref/pi - ln(ref/pi) - 1 of KL(pi || ref) on the tokens drawn. Papers and code leave open which
    policy is the reference (arXiv 2507.05386 has one fixed model in its configuration, and the
    task's start in its ablations): choose it with ``reference``.
    """

    class Config(RFT.Config):
        """Settings of :class:`KLRFT`: those of RFT, with ``kl`` on."""

        kl: float = Field(default=0.01, gt=0)


class DirectRFT(RFT):
    """RFT on rollouts that begin with the answer: no thought is drawn, and none is rewarded.

    The ablation without a chain of thought of arXiv 2507.05386 (which uses another prompt; here the
    prompt is the same, and the protocol's answer tag begins the reply).
    """

    class Config(RFT.Config):
        """Settings of :class:`DirectRFT`: those of RFT, with ``begin`` on."""

        begin: Literal["direct", "reasoning"] = "direct"


class LoRA(SFT):
    """SFT of low-rank adapters, merged into the weights when the stage ends.

    Hu et al. 2021 (arXiv 2106.09685, eq. 3): W + (lora_alpha / lora_rank) B A, with B = 0 at the
    start. "LoRA learns less and forgets less" (Biderman et al. 2024, arXiv 2405.09673).
    """

    class Config(SFT.Config):
        """Settings of :class:`LoRA`: those of SFT, with adapters."""

        lora_rank: int = Field(default=8, ge=1)


class OLoRA(LoRA):
    """SFT of adapters in orthogonal subspaces: :mod:`cpt_bench.trainers.parts.olora`."""

    class Config(LoRA.Config):
        """Settings of :class:`OLoRA`: those of LoRA, with ``olora`` on."""

        olora: Literal["off", "project", "penalty"] = "project"

        @model_validator(mode="after")
        def _on(self) -> OLoRA.Config:
            if self.olora == "off":
                raise ValueError("olora=off is plain LoRA: use sft-lora")
            return self
