"""How fast a stage of nano's base model learns, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

WARM_UP: Final = 100
ASKED_EVERY: Final = 100
"""Steps between two questions whether a stage has reached what it must."""


class Schedule:
    """A stage's learning rate: warm-up, flat, then a linear decay to 3 %.

    The loss of some skills stays on a plateau for long and then drops suddenly, and when it drops
    depends on the seed. Such a stage has ``until``: its rate stays flat until the drop was seen,
    at the earliest where it would decay anyway, and at the latest such that it ends at ``most``.

    Args:
        stage: ``steps``, ``lr`` and ``decay_from`` (a share of the steps); ``until`` and ``most``
            where it waits.
    """

    def __init__(self, stage: dict[str, Any]) -> None:
        self.rate, self.waits = float(stage["lr"]), "until" in stage
        self.tail: int = round((1 - stage["decay_from"]) * stage["steps"])
        self.earliest: int = stage["steps"] - self.tail
        self.latest: int = stage["most"] - self.tail if self.waits else self.earliest
        self.turn: int | None = None if self.waits else self.earliest

    def goes_on(self, step: int, reached: Callable[[], bool]) -> bool:
        """Whether there is a step ``step``; ``reached`` is asked now and then while it waits."""
        if self.turn is None and (step == self.latest or (self._asks(step) and reached())):
            self.turn = step
        return self.turn is None or step < self.turn + self.tail

    def _asks(self, step: int) -> bool:
        waited = step - self.earliest
        return waited >= 0 and waited % ASKED_EVERY == 0

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / WARM_UP)
        if self.turn is None or step < self.turn or not self.tail:
            return self.rate * warm
        return self.rate * warm * max(0.03, (self.turn + self.tail - step) / self.tail)
