"""The numbers of a stored run, recomputed from its per-sample outcomes; without resampling.

The definitions are those of ``metrics.json`` (:mod:`cpt_bench.metrics`, and kinds of loss); a
number with missing cells is None. The study's intervals are over runs, so the bootstrap over
samples, which takes most of the time of scoring, is not needed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cpt_bench.metrics import METRICS, Matrix, matrix_to_json, rounded
from cpt_bench.metrics.passports import what_is_missing
from cpt_bench.results.losses import lost_and_won
from cpt_bench.study.stored import Stored
from cpt_bench.suite import Suite

Array = npt.NDArray[np.float64]
Numbers = dict[str, float | None]


def matrix_of(stored: Stored) -> Matrix:
    """R in percent, shape (T+1, T), NaN where not measured."""
    return Matrix(stored.order, _accuracy(stored, stored.order))


def _accuracy(stored: Stored, names: tuple[str, ...]) -> Array:
    table = np.full((len(stored.order) + 1, len(names)), np.nan)
    for (t, name), row in stored.answers.items():
        if name in names:
            table[t, names.index(name)] = 100 * float(np.mean(row["strict"]))
    return table


def general_of(stored: Stored, suite: Suite) -> Array:
    """G in percent, shape (T+1, benchmarks)."""
    return _accuracy(stored, suite.general)


def claims(stored: Stored, suite: Suite) -> dict[str, Any]:
    """The matrix and all numbers, in the form in which a stored run has them."""
    general = Matrix(suite.general, general_of(stored, suite))
    return {
        "matrix": matrix_to_json(matrix_of(stored))["accuracy"],
        "general": matrix_to_json(general)["accuracy"],
        "numbers": numbers(stored, suite),
    }


def numbers(stored: Stored, suite: Suite) -> Numbers:
    """Key to number, in percentage points or nats; None if not measured."""
    matrix, general = matrix_of(stored), general_of(stored, suite)
    out: Numbers = {}
    for metric in METRICS:
        whole = not what_is_missing(metric, matrix)
        out[metric.key] = rounded(float(metric.number(matrix.accuracy, matrix))) if whole else None
    change = general[-1] - general[0]
    out["GeneralDelta"] = None if np.isnan(change).any() else rounded(float(change.mean()))
    out |= _shares(stored)
    out |= _general_shares(stored, suite)
    last = len(stored.order)
    for key, names in (("KL_new", (stored.order[-1],)), ("KL_general", suite.general)):
        out[key] = divergence(stored, last, names)
    return out


def divergence(stored: Stored, stage: int, names: tuple[str, ...]) -> float | None:
    """Mean over benchmarks of the mean KL over their prompts, after a stage."""
    rows = [stored.kl.get((stage, name)) for name in names]
    if not rows or any(row is None for row in rows):
        return None
    return rounded(float(np.mean([np.mean(row["kl"]) for row in rows if row is not None])))


def _shares(stored: Stored) -> Numbers:
    keys = ("Flips_1to0", "Flips_0to1", "Lost", "Won", "Lost_format", "Lost_mode", "Lost_content")
    found: dict[str, list[float | None]] = {key: [] for key in keys}
    for j, task in enumerate(stored.order[:-1]):
        outcomes = stored.outcomes(task)
        split = outcomes.kinds(task=True)
        if split is None:
            return dict.fromkeys(keys)
        flips = lost_and_won(outcomes.strict[j + 1], outcomes.strict[-1])
        parts = (*flips, split.lost, split.won, split.format, split.mode, split.content)
        for key, part in zip(keys, parts, strict=True):
            found[key].append(None if part is None else 100 * float(part.mean()))
    return {key: _mean(values) for key, values in found.items()}


def _general_shares(stored: Stored, suite: Suite) -> Numbers:
    """The same split for the general benchmarks' losses since the base."""
    found: dict[str, list[float | None]] = {"lost": [], "format": [], "mode": [], "content": []}
    for name in suite.general:
        split = stored.outcomes(name).kinds(task=False)
        for key, values in found.items():
            part = None if split is None else getattr(split, key)
            values.append(None if part is None else 100 * float(part.mean()))
    return {f"General_{key}": _mean(values) if values else None for key, values in found.items()}


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return rounded(float(np.mean(known))) if known and len(known) == len(values) else None
