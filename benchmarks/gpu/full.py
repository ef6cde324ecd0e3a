"""Part ``full``: all weights of as many layers as fit are trained; bytes a weight."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import architecture, card
from benchmarks.gpu.plan import longest_of
from benchmarks.gpu.scale import Place
from benchmarks.gpu.stages import settings_of, train
from cpt_bench.advice import estimate
from cpt_bench.advice.estimate import ASSUMED, GIB, GPU, Settings
from cpt_bench.models.families.weights import Architecture

FILLED = 0.85
"""Share of the memory that the plan may fill: it counts neither fragments nor buffers."""
TOGETHER = 8
"""GPUs of the recipe ``cpt7/sft``."""


def measure(place: Place) -> dict[str, Any]:
    """Steps of ``cpt7/sft`` on one GPU, with fewer layers."""
    scale = place.scale
    whole = Architecture.of(scale.facts)
    changes = {"lora_rank": 0, "batch_size": 1, "gradient_accumulation": 1}
    scale = scale._replace(settings={**scale.settings, **changes})
    place = place._replace(scale=scale)
    config = settings_of(place, "sft", "cpt7/sft", {})
    gpu, settings = card.known(scale.device), Settings.model_validate(config.model_dump())
    longest = longest_of(scale, settings, whole, ASSUMED.target)
    layers = fitting(whole, settings, gpu, longest) if scale.device == "cuda" else 1
    start = place.own / "model"
    weights = architecture.write(start, scale.facts, scale.device, layers)
    found = train(place, "sft", config, policy=start, end=False)
    sharded = settings.model_copy(update={"sharding": "zero3"})
    each = found["gib held after a step"] * GIB / weights
    return {
        **found,
        "layers": layers,
        "of": whole.layers,
        "weights": weights,
        # Weights and AdamW's two averages; gradients and activations are gone by then.
        "bytes a weight between steps": each,
        "bytes a weight at most": found["gib at most in steps"] * GIB / weights,
        "planned gib": estimate.memory(
            False, settings, whole._replace(layers=layers), gpu, 1, longest
        ).total,
        "whole model on 8 GPUs": {
            "planned gib on each": estimate.memory(
                False, sharded, whole, gpu, TOGETHER, longest
            )._asdict(),
            "gib on each by what was measured, activations left out":
                (each + settings.width) * whole.parameters / TOGETHER / GIB,
        },
    }  # fmt: skip


def fitting(whole: Architecture, settings: Settings, gpu: GPU, longest: float) -> int:
    """The most layers with which the plan fills no more than :data:`FILLED` of the memory."""
    for layers in range(whole.layers, 1, -1):
        needed = estimate.memory(
            False, settings, whole._replace(layers=layers), gpu, 1, longest
        ).total
        if needed <= FILLED * gpu.memory:
            return layers
    return 1
