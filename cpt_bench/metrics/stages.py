"""Forgetting by each stage, and quadratic fits; pure functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cpt_bench.metrics.matrix import Array, rounded


class Forgotten(NamedTuple):
    """Changes by the end of a stage, in R's unit; negative = forgot; None if not measured.

    Attributes:
        general: mean_b (G[t][b] - G[0][b]).
        tasks: mean_{j<t} (R[t][j] - R[j][j]): backward transfer so far; None after stage 1.
    """

    general: float | None
    tasks: float | None


def forgotten_by(stage: int, accuracy: Array, general: Array) -> Forgotten:
    """Changes by the end of a stage.

    Args:
        stage: The stage, from 1.
        accuracy: R, shape (T+1, T).
        general: G, shape (T+1, benchmarks).
    """
    columns = np.arange(stage - 1)
    earlier = accuracy[stage, columns] - accuracy[columns + 1, columns]
    return Forgotten(_mean(general[stage] - general[0]), _mean(earlier))


def _mean(values: Array) -> float | None:
    return None if not len(values) or np.isnan(values).any() else rounded(float(values.mean()))


def quadratic(x: Array, y: Array) -> tuple[float, Array]:
    """R² of the least-squares quadratic of y on x, and its coefficients (constant first).

    If x or y is constant, R² is 0.
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, np.array([float(y.mean()), 0.0, 0.0])
    scale = float(np.abs(x).max())
    powers = np.vander(x / scale, 3, increasing=True)
    best = np.linalg.lstsq(powers, y, rcond=None)[0]
    rest = float(((y - powers @ best) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return 1 - rest, best / scale ** np.arange(3)
