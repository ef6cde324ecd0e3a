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
