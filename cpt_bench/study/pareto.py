"""Methods at matched learning: how much is forgotten where two have learned as much; pure.

A method's *curve* is the upper edge of its points (LearnGain, what is kept), one a learning rate
(the mean over seeds), from the base model at (0, 0) on: how much can be kept while learning at
least so much. Two methods are compared on the upper half of the learning that both reach: below it
every method looks alike, for a step too small to learn is too small to forget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.metrics import Interval, rounded
from cpt_bench.study.points import Point

Array = npt.NDArray[np.float64]

DRAWS: Final = 1000
LEVELS: Final = 11
RATES: Final = 3
"""Learning rates that a curve needs, each with at least two seeds."""


class Setting(NamedTuple):
    """One learning rate of a method: (LearnGain, kept) of each seed, shape (seeds, 2)."""

    rate: float
    runs: Array


class Matched(NamedTuple):
    """The first method's kept minus the second's, averaged over levels of learning.

    Attributes:
        value: In percentage points; positive: the first forgets less.
        interval: Bootstrap over the runs of each learning rate.
        level: The most learning that both reach, in percentage points.
        runs: How many runs were compared.
    """

    value: float
    interval: Interval
    level: float
    runs: int


def settings(points: Sequence[Point], kept: str) -> list[Setting]:
    """A method's points by learning rate."""
    by_rate: dict[float, list[tuple[float, float]]] = {}
    for point in points:
        learned, held = point.numbers["LearnGain"], point.numbers[kept]
        if learned is not None and held is not None:
            by_rate.setdefault(point.rate, []).append((learned, held))
    return [Setting(rate, np.array(found)) for rate, found in sorted(by_rate.items())]


def curve(means: Array) -> Array:
    """The upper edge of points (learned, kept), shape (n, 2), by learning, with the base at 0, 0.

    A point is on the edge when no other one has learned as much and kept more. What learned
    nothing is no point of a learning curve.
    """
    out: list[tuple[float, float]] = []
    best = -np.inf
    for learned, kept in sorted(means.tolist(), reverse=True):
        if learned > 0 and kept > best:
            out.append((learned, kept))
            best = kept
    if best < 0 or not out:
        out.append((0.0, 0.0))
    else:
        out.append((0.0, max(best, 0.0)))
    return np.array(out[::-1])


def at(edge: Array, levels: Array) -> Array:
    """The curve between its points, by straight lines."""
    found: Array = np.interp(levels, edge[:, 0], edge[:, 1])
    return found


def matched(first: Sequence[Setting], second: Sequence[Setting]) -> Matched | None:
    """Compare two methods at matched learning; None where one has learned nothing."""
    found = _apart(_means(first), _means(second))
    if found is None:
        return None
    rng, drawn = np.random.default_rng(list(b"matched")), []
    for _ in range(DRAWS):
        again = [_means(_resampled(side, rng)) for side in (first, second)]
        apart = _apart(*again)
        if apart is not None:
            drawn.append(apart[0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = Interval(rounded(float(low)), rounded(float(high)), 0.95, "bootstrap over runs")
    runs = sum(len(s.runs) for s in (*first, *second))
    return Matched(rounded(found[0]), interval, rounded(found[1]), runs)


def missing(name: str, found: Sequence[Setting]) -> str:
    """What a curve lacks to be compared; empty for nothing."""
    enough = [s for s in found if len(s.runs) >= 2]
    if len(enough) >= RATES:
        return ""
    return f"{name}: {len(enough)} of {RATES} learning rates with two seeds"


def _means(found: Sequence[Setting]) -> Array:
    return np.array([s.runs.mean(axis=0) for s in found])


def _resampled(found: Sequence[Setting], rng: np.random.Generator) -> list[Setting]:
    return [s._replace(runs=s.runs[rng.integers(0, len(s.runs), len(s.runs))]) for s in found]


def _apart(first: Array, second: Array) -> tuple[float, float] | None:
    edges = curve(first), curve(second)
    top = min(float(edge[-1, 0]) for edge in edges)
    if top <= 0:
        return None
    levels = np.linspace(top / 2, top, LEVELS)
    return float(np.mean(at(edges[0], levels) - at(edges[1], levels))), top
