"""SFT with rationales: the target is a thought in the base model's style, then the gold answer.

Published comparisons of SFT and RFT train SFT on bare answers and RFT on chains of thought, so that
the loss and the style of the target change together. Here SFT's target is a thought and the answer.
A setting chooses where the thoughts come from:

* ``data``: the data set's own rationale, for suites whose rationales are written in the base
  model's style (nano's were its pre-training text); samples without one are left out.
* ``own``: thoughts of the stage's start policy that led it to the right answer (STaR, Zelikman et
  al. 2022, arXiv 2203.14465, without its hints): SFT on own filtered rollouts that begin with a
  thought. arXiv 2506.23508 finds that SFT on such targets retains most of what SFT on gold loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from cpt_bench.errors import CptBenchError
from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.log import StageLog
from cpt_bench.trainers.rft import begins
from cpt_bench.trainers.selfsft import SelfSFT


class RationaleSFT(SelfSFT):
    """SFT on a thought and the answer."""

    class Config(SelfSFT.Config):
        """Settings of :class:`RationaleSFT`; those of rollouts matter for ``rationales=own``.

        Attributes:
            rationales: Where the thoughts come from; see the module.
        """

        rationales: Literal["data", "own"] = "data"
        begin: Literal["free", "direct", "reasoning"] = "reasoning"

    def own(
        self, stage: Stage, samples: Sequence[TrainSample], model: Any, log: StageLog
    ) -> list[TrainSample]:
        if self.config.rationales == "own":
            return super().own(stage, samples, model, log)
        opened, closed = begins(stage, "reasoning"), stage.form.thought[1]
        thoughtful = [
            replace(s, target=f"{opened}{s.rationale}{closed}{s.target}")
            for s in samples
            if s.rationale
        ]
        if not thoughtful:
            raise CptBenchError(
                f"{stage.task} has no rationales",
                where=f"stage {stage.index}",
                todo="Use --set rationales=own: the policy's own thoughts",
            )
        return thoughtful
