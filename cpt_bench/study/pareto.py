"""Compares methods at matched learning: the forgetting of two methods that learned equally; pure.

A method's *curve* is the upper edge of its points (LearnGain, retention), one per learning rate
(the mean over seeds), from the base model at (0, 0) on: the highest retention with at least a given
amount of learning. Two methods are compared on the upper half of the learning that both reach:
below it all methods look the same, since steps too small to learn are too small to forget.
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
"""How many learning rates a curve needs, each with at least :data:`SEEDS`."""
SEEDS: Final = 2


class Setting(NamedTuple):
    """One learning rate of a method: (LearnGain, retention) of each seed, shape (seeds, 2)."""

    rate: float
    runs: Array


class Matched(NamedTuple):
    """The first method's retention minus the second's, averaged over levels of learning.

    Attributes:
        value: In percentage points; positive: the first forgets less.
        interval: The interval over the runs of each learning rate; see :func:`_redrawn`.
        least: The smallest difference at any of the levels. Between two learning rates a curve is
            interpolated, so that a mean may depend mostly on one interpolated part.
        most: The largest difference.
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
    """The upper edge of points (learning, retention), shape (n, 2), from the base at (0, 0).

    A point is on the edge if no other point has at least its learning and more retention. Points
    without learning are left out.
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
    """The curve, interpolated linearly between its points."""
    found: Array = np.interp(levels, edge[:, 0], edge[:, 1])
    return found


def matched(first: Sequence[Setting], second: Sequence[Setting]) -> Matched | None:
    """Compare two methods at matched learning; None if one has learned nothing."""
    first, second = repeated(first), repeated(second)
    found = _apart(_means(first), _means(second))
    if found is None:
        return None
    rng, drawn = np.random.default_rng(list(b"matched")), []
    for _ in range(DRAWS):
        difference = _apart(_redrawn(first, rng), _redrawn(second, rng))
        if difference is not None:
            drawn.append(difference[0].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = Interval(rounded(float(low)), rounded(float(high)), 0.95, "t, redrawn over runs")
    runs = sum(len(s.runs) for s in (*first, *second))
    by_level, top = found
    ends = rounded(float(by_level.min())), rounded(float(by_level.max()))
    return Matched(rounded(float(by_level.mean())), interval, *ends, rounded(top), runs)


def repeated(found: Sequence[Setting]) -> list[Setting]:
    """The settings whose variance can be estimated: those run with several seeds."""
    return [s for s in found if len(s.runs) >= SEEDS]


def missing(name: str, found: Sequence[Setting]) -> str:
    """What is missing to compare a curve; empty if nothing is."""
    enough = repeated(found)
    if len(enough) >= RATES:
        return ""
    return f"{name} has {len(enough)} of {RATES} learning rates with two seeds"


def _means(found: Sequence[Setting]) -> Array:
    return np.array([s.runs.mean(axis=0) for s in found])


def _redrawn(found: Sequence[Setting], rng: np.random.Generator) -> Array:
    """One random draw of the means, shape (settings, 2).

    Each mean is shifted by a random combination of its runs' deviations, with the covariance of the
    mean, and widened like Student's t with the degrees of freedom of all settings together. With
    two runs per setting, resampling would give an interval half as wide, which contains the true
    value two times in three; this one does nineteen times in twenty, or slightly less.
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
