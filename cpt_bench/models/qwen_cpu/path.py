"""What :mod:`cpt_bench.models.quick` takes from here, and for which models and processors."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from cpt_bench.models.continuing import Reading, Scores
from cpt_bench.models.processor import Qwen2_5_VLProcessor
from cpt_bench.models.qwen_cpu import decoding, layers, processing, vision


class QuickQwen(NamedTuple):
    """See :class:`cpt_bench.models.quick.QuickModel`."""

    model: Any

    def read(self, inputs: dict[str, torch.Tensor]) -> Reading:
        return Reading(decoding.Decoder(self.model), decoding.read(self.model, inputs))

    def score_answers(self, inputs: dict[str, torch.Tensor], length: int) -> Scores:
        return decoding.score_answers(self.model, inputs, length)


def quick_model(model: Any) -> QuickQwen | None:
    """The quick path of ``model``; None where it is not whole, in float32 and on a CPU."""
    return QuickQwen(model) if decoding.fits(model) else None


def arrange_model(model: Any) -> Any:
    """Let ``model`` compute with the layers of this package."""
    return layers.arrange(model)


def arrange_processor(processor: Any) -> Any:
    """Let ``processor`` encode with this package; one with a video processor only its pictures."""
    if type(processor) is Qwen2_5_VLProcessor:
        # The class alone changes: parts and settings stay what they are.
        processor.__class__ = processing.Qwen2_5_VLProcessor
    return vision.prepare_together(processor)
