"""Fits that predict forgetting from a quantity of each stage; pure functions.

RL's Razor (arXiv 2509.04259) fits forgetting as a quadratic of KL(base || policy) on the new task's
prompts. In arXiv 2507.05386 the risk of an update is proportional to the variance of its rewards.
Both are fitted in the same way, by least squares on one point per run and stage; the interval of
R² is a bootstrap over *runs*, because the stages of a run are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.metrics import Interval, quadratic, rounded
from cpt_bench.study.points import Point

Array = npt.NDArray[np.float64]

DRAWS: Final = 1000
RUNS: Final = 6
"""The number of runs needed for a fit: a quadratic has three coefficients."""


class Law(NamedTuple):
    """A fitted law.

    Attributes:
        x: The predictor; a field of :class:`~cpt_bench.study.points.Stage`.
        y: The predicted quantity: ``general`` or ``tasks``.
        coefficients: The coefficients of 1, x and x².
        r2: Share of the variance of y that it explains.
        interval: The interval of R², over runs.
        runs: How many runs have both.
        points: (x, y) of each stage, shape (n, 2).
    """

    x: str
    y: str
    coefficients: tuple[float, ...]
    r2: float
    interval: Interval
    runs: int
    points: Array


def table(points: Sequence[Point], names: Sequence[str], first: bool = False) -> list[Array]:
    """One table per run, shape (stages, names): the stages for which all names are known.

    With ``first`` only the first stage: one task learned from the base model, the case for which
    the laws were published, and one point per run. A stage shared by several runs counts once.
    """
    out = []
    seen: set[str] = set()
    for point in points:
        stages = point.stages[:1] if first else point.stages
        stages = tuple(stage for stage in stages if stage.weights not in seen)
        seen |= {stage.weights for stage in stages}
        rows = [[getattr(stage, name) for name in names] for stage in stages]
        known = [row for row in rows if None not in row]
        if known:
            out.append(np.array(known, dtype=np.float64))
    return out


def fit(points: Sequence[Point], x: str, y: str, first: bool = False) -> Law | None:
    """The law of y on x, or None with fewer than :data:`RUNS` runs that have both."""
    runs = table(points, (x, y), first)
    if len(runs) < RUNS:
        return None
    whole = np.vstack(runs)
    r2, coefficients = quadratic(whole[:, 0], whole[:, 1])
    drawn = [quadratic(*np.vstack([runs[i] for i in chosen]).T)[0] for chosen in _draws(len(runs))]
    return Law(
        x, y, tuple(float(f"{c:.6g}") for c in coefficients), rounded(r2), _interval(drawn),
        len(runs), whole,
    )  # fmt: skip


def gap(
    points: Sequence[Point], one: str, other: str, y: str, first: bool = False
) -> tuple[float, Interval, int] | None:
    """R² of one law minus that of the other, on the stages that have both predictors."""
    runs = table(points, (one, other, y), first)
    if len(runs) < RUNS:
        return None

    def difference(chosen: Sequence[int]) -> float:
        whole = np.vstack([runs[i] for i in chosen])
        return quadratic(whole[:, 0], whole[:, 2])[0] - quadratic(whole[:, 1], whole[:, 2])[0]

    drawn = [difference(chosen) for chosen in _draws(len(runs))]
    return rounded(difference(range(len(runs)))), _interval(drawn), len(runs)


def _draws(n: int) -> list[list[int]]:
    """The runs of each resample, by index."""
    drawn: list[list[int]] = (
        np.random.default_rng(list(b"laws")).integers(0, n, (DRAWS, n)).tolist()
    )
    return drawn


def _interval(drawn: Sequence[float]) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(rounded(float(low)), rounded(float(high)), 0.95, "bootstrap over runs")
