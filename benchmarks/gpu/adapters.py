"""Short stages by adapters on one GPU: ``sft``, ``rft`` and the methods that store more."""

from __future__ import annotations

import math
import statistics
from typing import Any

from benchmarks.gpu import plan
from benchmarks.gpu.scale import Place
from benchmarks.gpu.stages import settings_of, train
from cpt_bench.advice.estimate import GIB

STRIDES = {"learning_rate": 1e-2, "warmup_steps": 0}
"""Steps so large that replies change: else a swap of weights would show nothing."""
LENGTH = "completions/mean_length"
"""What TRL calls the mean tokens of a batch's rollouts."""
LOOSE = 1e3
"""A tolerance of the self-check that nothing exceeds: its difference is to be measured."""
ROLLOUTS = {
    # Of the recipe's 128 batches a step, and of its 4 updates a generation: a step's seconds here
    # times 64 are the recipe's.
    "gradient_accumulation": 2,
    "updates_per_generation": 2,
    "self_check": 2,
    "self_check_tolerance": LOOSE,
}
STEPS = 3
"""Of a method that stores more than a plain stage."""


def sft(place: Place) -> dict[str, Any]:
    """Supervised, against the plan; its checkpoint is what part ``evaluation`` swaps in."""
    config = settings_of(place, "sft", "cpt7/sft-lora", STRIDES)
    found = train(place, "sft", config)
    return {**found, "plan": plan.compare(place.scale, False, config, found, found["steps"])}


def rft(place: Place) -> dict[str, Any]:
    """By rollouts of transformers, against the plan; it writes no checkpoint."""
    config = settings_of(place, "rft", "cpt7/rft-lora", ROLLOUTS)
    found = rolled(train(place, "rft", config, end=False), config)
    steps = found["rollouts"]["steps"]
    return {**found, "plan": plan.compare(place.scale, True, config, found, steps)}


def rolled(found: dict[str, Any], config: Any) -> dict[str, Any]:
    """With the rollouts' tokens a second, and the differences that the self-check saw."""
    rows = found["log"]
    together = config.updates_per_generation
    batch = config.prompts_per_step * config.rollouts * config.gradient_accumulation
    # Those of the last steps are written whole, also where the stage ends before they are used.
    steps = math.ceil(len(rows) / together) * together
    lengths = [row[LENGTH] for row in rows if LENGTH in row]
    tokens = statistics.mean(lengths) * batch * steps
    seconds = sum(row.get("generation_seconds", 0.0) for row in rows)
    check = {key: row[key] for row in rows for key in row if key.startswith("self_check")}
    rollouts = {
        "steps": steps,
        "tokens": tokens,
        "tokens a second": tokens / seconds,
        "seconds a step": seconds / steps,
        "written together": batch * together,
    }
    return {**found, "rollouts": rollouts, "self-check": check}


def lwf(place: Place) -> dict[str, Any]:
    """The anchor is the model without its adapters."""
    return train(place, "lwf", settings_of(place, "lwf", "cpt7/lwf", few(place)))


def rapo(place: Place) -> dict[str, Any]:
    """As a second stage: the first has no anchor."""
    config = settings_of(place, "rapo", "cpt7/rapo", {**ROLLOUTS, **few(place)})
    return rolled(train(place, "rapo", config, index=2), config)


def ewc(place: Place) -> dict[str, Any]:
    """As a first stage: without a penalty; at its end the Fisher information is measured."""

    def between(step: int) -> None:
        if step == 1:
            # Loaded, and read by no part from here on: the end writes 46 GB.
            for file in place.model.glob("*.safetensors"):
                file.unlink()

    changes = {"ewc_samples": 2, **few(place)}
    config = settings_of(place, "ewc", "cpt7/ewc", changes)
    return train(place, "ewc", config, between=between)


def penalty(place: Place) -> dict[str, Any]:
    """The second stage after part ``ewc``'s: its steps, with the penalty; it writes nothing."""
    first = place.scratch / "ewc" / "stage"
    config = settings_of(place, "ewc", "cpt7/ewc", few(place))
    stored = first / "state"
    found = train(place, "ewc", config, policy=first / "out", index=2, stored=stored, end=False)
    return {**found, "gib stored": sum(f.stat().st_size for f in stored.iterdir()) / GIB}


def few(place: Place) -> dict[str, Any]:
    """The steps of a method's stage; without a warm-up, whose first step moves nothing."""
    return {"max_steps": min(STEPS, place.scale.steps), "warmup_steps": 0}
