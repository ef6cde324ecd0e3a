"""How many answers two runs share: as many as two seeds of one method do, or as only a copy does.

Two seeds start from the same base model and learn the same data, so most of their replies are the
same: what the base answered already, what both learned, what either answers to everything. Two runs
differ in the rest, the *contested* answers: those that training changed in either run and that are
not right in both, nor both the commonest answer of their file. A copy shares them with its
original; independent seeds differ in them, be it a little training or a lot.

Measured on the 202 pairs of seeds of 84 methods and learning rates, from two base models, that are
stored in ``docs/study/results`` (``tests/leaderboard/test_likeness.py`` does it again):

=====================================================  =============  ===============
share of contested answers that differ                 least, honest  called a copy
=====================================================  =============  ===============
in one stage (1,304 stages)                            0.22           below 0.10
in all stages together                                 0.29           below 0.10
in all stages, of what the entry's other pairs do      0.87           below 0.50
in one stage, of what the entry's other pairs do       0.63           below 0.35
two methods, one seed (6,218 pairs of runs)            0.20           below 0.10
=====================================================  =============  ===============

=====================================================  =============  ===============
of the base's right answers, those that one run alone
lost, as a share of what chance gives                  least, honest  called a copy
=====================================================  =============  ===============
in all stages together                                 0.16           below 0.06
in all stages, of what the entry's other pairs do      0.71           below 0.30
=====================================================  =============  ===============

Least are runs at a third of their recipe's learning rate. The second kind of share does not look
at which wrong answer was given, so that a copy is not hidden by other wrong ones. Chance is two
runs that lose as many answers of a file as these did, each on its own: where both lost all, as
runs do that diverge, it gives nothing, and no share is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.leaderboard.recompute import Seed

COPIED: Final = 0.10
"""Share of contested answers that differ, below which two runs are one."""
COPIED_LOSSES: Final = 0.06
RELATIVE: Final = 0.50
"""The same, of what the other pairs of seeds of the entry differ in."""
RELATIVE_STAGE: Final = 0.35
RELATIVE_LOSSES: Final = 0.30
ENOUGH: Final = 200
"""Contested answers from which on a share of them means something by itself."""
SOME: Final = 60
"""Contested answers of a stage from which on it is set against other pairs' share there."""

Cell = tuple[int, str]
Bits = npt.NDArray[np.bool_]


class Share(NamedTuple):
    """So many of so many."""

    part: int
    of: int

    def __add__(self, other: object) -> Share:
        if not isinstance(other, Share):
            return NotImplemented
        return Share(self.part + other.part, self.of + other.of)

    @property
    def value(self) -> float:
        return self.part / self.of if self.of else math.nan

    def surely_below(self, share: float, least: int = ENOUGH) -> bool:
        """Whether three standard errors above it are still below ``share``."""
        return self.of >= least and self.part + 3 * math.sqrt(self.part + 1) < share * self.of


NONE: Final = Share(0, 0)


class Likeness(NamedTuple):
    """How two runs differ.

    Attributes:
        stages: Stage to the share of contested answers that differ.
        losses: Of the answers that the base had right: lost by one alone, and how many would be
            if each had lost as many as it did by itself.
    """

    stages: dict[int, Share]
    losses: Share

    @property
    def answers(self) -> Share:
        """Contested answers that differ, of all stages."""
        return sum(self.stages.values(), NONE)

    def copied(self) -> str:
        """In words, what shows that the two are one run; empty where nothing does."""
        for what, share in [
            ("all stages", self.answers),
            *((f"stage {t}", s) for t, s in self.stages.items()),
        ]:
            if share.surely_below(COPIED):
                return f"{_words(share)} contested answers of {what} differ"
        if self.losses.surely_below(COPIED_LOSSES):
            alone, chance = self.losses
            return f"{alone} answers were lost by one of them alone; by chance {chance} would be"
        return ""

    def nearer_than(self, others: Iterable[Likeness]) -> str:
        """The same, measured by how other pairs of seeds of this method differ."""
        others = list(others)
        whole = [other.answers for other in others]
        if why := _nearer(self.answers, whole, RELATIVE, ENOUGH):
            return f"{why} contested answers differ"
        for t, share in self.stages.items():
            there = [other.stages.get(t, NONE) for other in others]
            if why := _nearer(share, there, RELATIVE_STAGE, SOME):
                return f"{why} contested answers of stage {t} differ"
        if why := _nearer(self.losses, [o.losses for o in others], RELATIVE_LOSSES, ENOUGH):
            return f"{why} answers expected to be were lost by one of them alone"
        return ""


def _nearer(mine: Share, others: Iterable[Share], share: float, least: int) -> str:
    known = [other.value for other in others if other.of >= least]
    if not known or not mine.surely_below(share * float(np.mean(known)), least):
        return ""
    shown = ", ".join(f"{100 * value:.0f} %" for value in known)
    return f"{_words(mine)} (of the entry's other pairs {shown})"


def _words(share: Share) -> str:
    return f"{share.part} of {share.of}"


def likeness(one: Seed, two: Seed, stages: Iterable[int] | None = None) -> Likeness:
    """How two runs differ, over the cells that both have.

    Args:
        one: A run.
        two: Another, of the same suite.
        stages: Only these; all trained ones by default.
    """
    found: dict[int, Share] = {}
    losses = NONE
    for t, name in sorted(one.tables.keys() & two.tables.keys()):
        if t == 0 or (stages is not None and t not in stages):
            continue
        base = one.tables.get((0, name)) or two.tables.get((0, name))
        if base is None:
            continue
        left, right = one.tables[t, name], two.tables[t, name]
        a, b, start = left.answers, right.answers, base.answers
        good_a, good_b = left.outcomes[0] > 0.5, right.outcomes[0] > 0.5
        moved = (a != start) | (b != start)
        usual = (a == _commonest(a)) & (b == _commonest(b))
        contested = moved & ~(good_a & good_b) & ~usual
        found[t] = found.get(t, NONE) + _share(a != b, contested)
        losses += _lost_alone(good_a, good_b, (base.outcomes[0] > 0.5) & ~usual)
    return Likeness(found, losses)


def _share(differs: Bits, among: Bits) -> Share:
    return Share(int((differs & among).sum()), int(among.sum()))


def _lost_alone(good_a: Bits, good_b: Bits, had: Bits) -> Share:
    """Answers that one of two runs alone lost, and how many chance would give."""
    n = int(had.sum())
    if not n:
        return NONE
    a, b = float((~good_a[had]).mean()), float((~good_b[had]).mean())
    return Share(int((good_a != good_b)[had].sum()), round(n * (a * (1 - b) + b * (1 - a))))


def _commonest(marks: npt.NDArray[np.uint64]) -> np.uint64:
    values, counts = np.unique(marks, return_counts=True)
    return np.uint64(values[counts.argmax()])
