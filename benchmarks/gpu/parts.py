"""The parts, in order of worth, and how long each may take."""

from __future__ import annotations

import math
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
        needs: Parts that leave files which it reads; without them it is not started.
        reads: Parts whose files it reads if they are there.
    """

    name: str
    title: str
    target: str
    least: float
    limit: float
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


PARTS: Final = (
    Part("nano", "nano through sft and rft in both arithmetics; replies as on the CPU",
         "nano:measure", 60, 130),
    Part("model", "the 7B's configuration with random weights, made and written",
         "model:measure", 30, 75),
    Part("sft", "recipe cpt7/sft-lora: seconds a step, memory, against the plan",
         "adapters:sft", 45, 80, ("model",)),
    Part("rft", "recipe cpt7/rft-lora: seconds a step, rollouts, self-check, against the plan",
         "adapters:rft", 50, 95, ("model",)),
    Part("evaluation", "samples a second; weights swapped in place",
         "evaluation:measure", 45, 90, ("model",), ("sft",)),
    Part("full", "all weights of as many layers as fit: bytes a weight",
         "full:measure", 35, 90),
    Part("profile", "where a training step's time goes",
         "profile:measure", 30, 60, ("model",)),
    Part("lwf", "recipe cpt7/lwf by adapters: steps, the stage's end, memory",
         "adapters:lwf", 35, 75, ("model",)),
    Part("rapo", "recipe cpt7/rapo by adapters: steps, the stage's end, memory",
         "adapters:rapo", 40, 90, ("model",)),
    Part("ewc", "recipe cpt7/ewc by adapters, a first stage: steps, its end, memory",
         "adapters:ewc", 75, 140, ("model",)),
    Part("ewc-penalty", "the stage after it: steps with the penalty, memory",
         "adapters:penalty", 45, 80, ("ewc",)),
)  # fmt: skip
"""Nobody has measured these seconds: they are guesses from the sizes of what is read and computed.
The limits of the parts up to ``evaluation`` fit into eight minutes together, so that each of them
is certainly begun with all its time."""

MINUTES: Final = 8.0
"""Of a first call."""
SESSION: Final = 13.0
"""Minutes of all calls: a machine lent for 15 takes some to start."""


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


def no_longer_read(done: Collection[str], coming: Collection[Part]) -> list[str]:
    """Parts whose files nobody reads any more: a checkpoint of the 7B takes 17 GB."""
    wanted = {name for part in coming for name in (*part.needs, *part.reads)}
    return sorted(set(done) - wanted)


def limit_of(part: Part, left: float, patience: float = 1) -> float:
    """Seconds that a part may take when ``left`` are left: its limit times ``patience``."""
    return min(part.limit * patience, left)


def minutes_for(parts: Collection[Part], before: float) -> int:
    """Minutes of a second call: those of the parts' limits, or what the first has left over."""
    whole = math.ceil(sum(part.limit for part in parts) / 60)
    return max(1, min(whole, math.floor(SESSION - before)))
