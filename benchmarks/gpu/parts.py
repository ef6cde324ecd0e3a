"""The parts, in order of worth, and how long each may take."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple


class Part(NamedTuple):
    """One measurement.

    Attributes:
        name: Its file is ``<name>.json``.
        title: What it measures.
        target: ``module:function`` of this package; takes a :class:`~benchmarks.gpu.scale.Place`.
        least: Seconds that have to be left for it to be started.
        limit: Seconds after which it is ended.
        needs: Parts that leave files which it reads.
    """

    name: str
    title: str
    target: str
    least: float
    limit: float
    needs: tuple[str, ...] = ()


PARTS: Final = (
    Part("nano", "nano through sft and rft, float32 and bfloat16; replies as on the CPU",
         "nano:measure", 60, 150),
    Part("model", "the 7B's configuration with random weights, made and written",
         "model:measure", 30, 90),
    Part("sft", "recipe cpt7/sft-lora: seconds a step, memory, against the plan",
         "adapters:sft", 40, 100, ("model",)),
    Part("rft", "recipe cpt7/rft-lora: seconds a step, rollouts, self-check, against the plan",
         "adapters:rft", 60, 130, ("model",)),
    Part("evaluation", "samples a second; weights swapped in place",
         "evaluation:measure", 45, 110, ("model",)),
    Part("full", "all weights of as many layers as fit: bytes a weight",
         "full:measure", 60, 120),
    Part("profile", "where a training step's time goes",
         "profile:measure", 40, 90, ("model",)),
    Part("lwf", "recipe cpt7/lwf by adapters: steps, the stage's end, memory",
         "adapters:lwf", 40, 90, ("model",)),
    Part("rapo", "recipe cpt7/rapo by adapters: steps, the stage's end, memory",
         "adapters:rapo", 60, 130, ("model",)),
    Part("ewc", "recipe cpt7/ewc by adapters: steps, the stage's end, memory",
         "adapters:ewc", 90, 180, ("model",)),
)  # fmt: skip


def refusal(part: Part, left: float, done: Collection[str]) -> str | None:
    """Why a part is not started; None where it is.

    Args:
        part: The part.
        left: Seconds that are left.
        done: Parts whose files are there.
    """
    absent = [name for name in part.needs if name not in done]
    if absent:
        return f"needs {', '.join(absent)}"
    if left < part.least:
        return f"{left:.0f} s left, {part.least:.0f} needed"
    return None


def limit_of(part: Part, left: float) -> float:
    """Seconds that a part may take when ``left`` are left."""
    return min(part.limit, left)
