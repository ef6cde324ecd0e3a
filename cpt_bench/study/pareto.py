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
"""Learning rates that a curve needs, each with at least :data:`SEEDS`."""
SEEDS: Final = 2


class Setting(NamedTuple):
    """One learning rate of a method: (LearnGain, kept) of each seed, shape (seeds, 2)."""

    rate: float
    runs: Array


class Matched(NamedTuple):
    """The first method's kept minus the second's, averaged over levels of learning.

    Attributes:
        value: In percentage points; positive: the first forgets less.
        interval: Over the runs of each learning rate; see :func:`_redrawn`.
        least: The smallest difference at any of the levels. Between two learning rates a curve is
            a straight line that nobody ran: a mean may hang on one stretch of it.
        most: The largest.
        level: The most learning that both reach, in percentage points.
        runs: How many runs were compared.
    """

    value: float
    interval: Interval
    least: float
    most: float
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
    first, second = repeated(first), repeated(second)
    found = _apart(_means(first), _means(second))
    if found is None:
        return None
    rng, drawn = np.random.default_rng(list(b"matched")), []
    for _ in range(DRAWS):
        apart = _apart(_redrawn(first, rng), _redrawn(second, rng))
        if apart is not None:
            drawn.append(apart[0].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = Interval(rounded(float(low)), rounded(float(high)), 0.95, "t, redrawn over runs")
    runs = sum(len(s.runs) for s in (*first, *second))
    by_level, top = found
    ends = rounded(float(by_level.min())), rounded(float(by_level.max()))
    return Matched(rounded(float(by_level.mean())), interval, *ends, rounded(top), runs)


def repeated(found: Sequence[Setting]) -> list[Setting]:
    """The settings whose chance is known: run with several seeds."""
    return [s for s in found if len(s.runs) >= SEEDS]


def missing(name: str, found: Sequence[Setting]) -> str:
    """What a curve lacks to be compared; empty for nothing."""
    enough = repeated(found)
    if len(enough) >= RATES:
        return ""
    return f"{name}: {len(enough)} of {RATES} learning rates with two seeds"


def _means(found: Sequence[Setting]) -> Array:
    return np.array([s.runs.mean(axis=0) for s in found])


def _redrawn(found: Sequence[Setting], rng: np.random.Generator) -> Array:
    """The means as they might as well have been, shape (settings, 2).

    Each is moved by a random combination of its runs' deviations, of the mean's own covariance, and
    widened as Student's t is with the degrees of freedom that all settings have together. From two
    runs a setting, resampling them would give an interval half as wide, which holds the truth two
    times in three; this one does nineteen times in twenty, or little less.
    """
    freedom = sum(len(s.runs) - 1 for s in found)
    means = []
    for setting in found:
        n, mean = len(setting.runs), setting.runs.mean(axis=0)
        weights = rng.standard_normal(n) / np.sqrt(rng.chisquare(freedom) / freedom)
        means.append(mean + weights @ (setting.runs - mean) / np.sqrt(n * (n - 1)))
    return np.array(means)


def _apart(first: Array, second: Array) -> tuple[Array, float] | None:
    """The difference at each level, and the highest level."""
    edges = curve(first), curve(second)
    top = min(float(edge[-1, 0]) for edge in edges)
    if top <= 0:
        return None
    levels = np.linspace(top / 2, top, LEVELS)
    return at(edges[0], levels) - at(edges[1], levels), top
