"""How sure a verdict is, and how many runs would decide an undecided claim; pure functions.

``p`` is the smallest alpha at which an interval of level 1 - alpha decides a claim, this way or
that. For a claim such as 'low > 0' it is the two-sided p of the measured value against 0. Where an
interval is Student's, its width changes with the level as t does; elsewhere (a bootstrap, a redraw)
as the normal distribution's, which is an approximation.

Holm's correction holds the chance that any verdict of the page is wrong at 5 %, whatever the claims
have to do with each other: the k-th smallest of m p-values is multiplied by m - k + 1.

The seeds that a claim needs are those with which it would be decided four times in five, if its
mean and its spread are what they look like now: |mean - threshold| = (t(.975) + t(.8)) s / sqrt(n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cpt_bench.metrics import Interval, holm, t_quantile
from cpt_bench.study.claims import Claim, Verdict, holds
from cpt_bench.study.evidence import Evidence

LEVEL: Final = 0.95
POWER: Final = 0.8
MOST: Final = 1000
"""More repetitions than this are not given: the difference is too small to be looked for."""
NORMAL: Final = 1e6
"""Degrees of freedom at which t is the normal distribution."""


class Need(NamedTuple):
    """What a claim needs to be decided.

    Attributes:
        claim: The claim.
        have: Repetitions that its interval rests on: seeds, orders, or runs.
        need: Repetitions with which it would be decided four times in five; None: no number of
            them does, or more than :data:`MOST`.
        of: What is repeated.
        why: Why ``need`` is None.
    """

    claim: Claim
    have: int
    need: int | None
    of: str
    why: str = ""

    @property
    def more(self) -> int | None:
        return None if self.need is None else max(0, self.need - self.have)


def freedom(found: Evidence) -> float:
    """Degrees of freedom of the evidence's interval."""
    return NORMAL if found.repeated is None else found.repeated - 1


def widened(found: Evidence, by: float) -> Evidence:
    """The evidence with an interval ``by`` times as wide on both sides."""
    assert found.value is not None and found.interval is not None
    low = found.value - by * (found.value - found.interval.low)
    high = found.value + by * (found.interval.high - found.value)
    return found._replace(interval=Interval(low, high, LEVEL, found.interval.method))


def decided(claim: Claim, found: Evidence) -> bool:
    """Whether one of the claim's rules holds for the evidence."""
    return holds(claim.supports, found) or holds(claim.refutes, found)


def p_value(claim: Claim, found: Evidence) -> float:
    """The smallest alpha at which an interval of level 1 - alpha decides the claim; 1 if none."""
    usual, degrees = t_quantile((1 + LEVEL) / 2, freedom(found)), freedom(found)

    def at(alpha: float) -> bool:
        return decided(claim, widened(found, t_quantile(1 - alpha / 2, degrees) / usual))

    low, high = -9.0, 0.0  # log10 of alpha; a level nearer to 1 than 1e-9 is not looked at
    if not at(1 - 1e-9):
        return 1.0
    if at(10**low):
        return float(10**low)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if at(min(10**middle, 1 - 1e-9)) else (middle, high)
    return float(min(1.0, 10**high))


def corrected(
    claims: Sequence[Claim], evidence: Sequence[Evidence]
) -> list[tuple[float | None, float | None, Verdict]]:
    """Each claim's p, its p after Holm, and the verdict that remains; None where not measured."""
    measured = [i for i, found in enumerate(evidence) if found.value is not None]
    raw = [p_value(claims[i], evidence[i]) for i in measured]
    adjusted = dict(zip(measured, zip(raw, holm(raw), strict=True), strict=True))
    out: list[tuple[float | None, float | None, Verdict]] = []
    for i, claim in enumerate(claims):
        p, after = adjusted.get(i, (None, None))
        stays = after is not None and after < 1 - LEVEL
        out.append((p, after, claim.verdict if stays else "undecided"))
    return out


def need(claim: Claim, found: Evidence) -> Need:
    """How many repetitions would decide the claim four times in five.

    Seeds and orders are repeated with Student's t. Where an interval rests on all of a comparison's
    runs (curves, laws), it narrows with the square root of their number.
    """
    have, of = (found.runs, "runs") if found.repeated is None else (found.repeated, found.over)

    def enough(n: int) -> bool:
        return decided(claim, widened(found, _width(found, have, n)))

    if decided(claim, found):
        return Need(claim, have, have, of)
    if not decided(claim, widened(found, 0.0)):
        return Need(claim, have, None, of, _unreachable(claim, found))
    if not enough(MOST * have):
        return Need(claim, have, None, of, f"it would take more than {MOST * have:,} {of}")
    return Need(claim, have, _first(enough, have, MOST * have), of)


def _width(found: Evidence, have: int, n: int) -> float:
    """The width that decides with power 0.8 at ``n``, over the width of the interval now."""

    def half(count: int, power: bool) -> float:
        degrees = NORMAL if found.repeated is None else max(1, count - 1)
        more = t_quantile(POWER, degrees) if power else 0.0
        return (t_quantile((1 + LEVEL) / 2, degrees) + more) / math.sqrt(count)

    return half(n, True) / half(have, False)


def _unreachable(claim: Claim, found: Evidence) -> str:
    if {"least", "most"} & found.details.keys():
        return f"the sign changes between single {found.over or 'levels of learning'}"
    return "the value is on the threshold"


def _first(enough: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number for which ``enough``, which stays true once it is."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
