"""Metrics with their passports: value, formula, sign, divisor, n, interval, source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cpt_bench.metrics.definitions import METRICS, PARTS, Metric
from cpt_bench.metrics.intervals import (
    Interval,
    bootstrap_means,
    interval,
    peak_errors,
    sample_interval,
)
from cpt_bench.metrics.matrix import Array, Matrix, cell_name, rounded

TWO_TASKS = "a second task: this is defined from two tasks on"


def passport(
    value: float | None,
    *,
    title: str,
    formula: str,
    sign: str,
    source: str,
    divisor: int | None = None,
    n: int | None = None,
    interval: Interval | None = None,
    missing: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """One number with all that is needed to read it; ``missing`` explains why a value is None."""
    out: dict[str, Any] = {
        "value": None if value is None else rounded(float(value)),
        "title": title,
        "formula": formula,
        "sign": sign,
        "divisor": divisor,
        "n": n,
        "interval": interval._asdict() if interval is not None else None,
        "source": source,
    }
    if missing:
        out["missing"] = list(missing)
    return out | more


def what_is_missing(metric: Metric, matrix: Matrix) -> list[str]:
    """Why a metric has no value for this matrix; empty if it has one."""
    needed = metric.cells(matrix)
    missing = [cell for cell in needed if math.isnan(matrix.accuracy[cell])]
    if missing:
        return [cell_name(matrix.tasks, t, j) for t, j in missing]
    if not needed:
        return [TWO_TASKS]
    terms = metric.per_task(matrix.accuracy, matrix).shape[-1]
    return [TWO_TASKS] if (metric.divisor(terms) if metric.divisor else terms) < 1 else []


def errors(metric: Metric, matrix: Matrix, resampled: Array) -> tuple[Array, ...]:
    """The ``errors`` for :func:`~cpt_bench.metrics.intervals.sample_interval`, of shape (B,).

    Weighted sums of several runs' errors are the errors of means and differences of their numbers,
    if all runs were resampled together.
    """

    def number(r: Array) -> Array:
        return metric.number(r, matrix)

    if metric.peak is None:
        return (number(resampled) - number(matrix.accuracy),)
    rows = [metric.peak(matrix, j) for j in range(len(matrix.tasks))]
    return peak_errors(matrix.accuracy, resampled, rows, number)


def evaluate(
    matrix: Matrix, samples: Sequence[int] | None = None, resampled: Array | None = None
) -> dict[str, dict[str, Any]]:
    """All metrics of one matrix, each with its passport.

    Args:
        matrix: The matrix.
        samples: Number of test samples of each task, for ``n``; None if unknown.
        resampled: R recomputed on bootstrap resamples, shape (B, T+1, T), for the intervals.

    Returns:
        Key to ``value`` (None if cells are missing), ``title``, ``formula``, ``sign``,
        ``divisor``, ``n``, ``interval``, ``source`` and, if there are any, ``missing`` cells.
    """
    found = {metric.key: _evaluate(metric, matrix, samples, resampled) for metric in METRICS}
    found["Decomposition"] = _decomposition(found)
    return found


def _decomposition(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """AvgAcc as the sum of what the base could do, transfer, learning and forgetting.

    ``parts`` has each term's value; its interval is in the term's own passport.
    """
    missing = list(dict.fromkeys(c for key in PARTS for c in found[key].get("missing", ())))
    whole = found["AvgAcc"]
    return passport(
        None if missing else whole["value"],
        title="from the base model to the end",
        formula=f"AvgAcc = {' + '.join(PARTS)}",
        sign="each part in percentage points; they add up to AvgAcc",
        source="Continual Reasoning Gym (arXiv 2608.18574)",
        divisor=None if missing else whole["divisor"],
        n=whole["n"],
        missing=missing,
        parts={key: None if missing else found[key]["value"] for key in PARTS},
    ) | {"interval": None if missing else whole["interval"]}


def _evaluate(
    metric: Metric, matrix: Matrix, samples: Sequence[int] | None, resampled: Array | None
) -> dict[str, Any]:
    columns = sorted({j for _, j in metric.cells(matrix)})
    missing = what_is_missing(metric, matrix)
    value, divisor, bounds = None, None, None
    if not missing:
        terms = metric.per_task(matrix.accuracy, matrix)
        divisor = metric.divisor(terms.shape[-1]) if metric.divisor else terms.shape[-1]
        value = float(metric.divide(terms))
        if resampled is not None:
            drawn = errors(metric, matrix, resampled)
            bounds = sample_interval(value, drawn, metric.peak is not None)
    return passport(
        value,
        title=metric.title,
        formula=metric.formula,
        sign=metric.sign,
        source=metric.source,
        divisor=divisor,
        n=sum(samples[j] for j in columns) if samples is not None else None,
        interval=bounds,
        missing=missing,
    )


def general_delta(
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    draws: int,
    extra: Callable[[str], dict[str, Any]] = lambda name: {},
    names: Iterable[str] | None = None,
) -> dict[str, Any]:
    """General capability: score after minus before, per benchmark and their mean, paired.

    Args:
        before: Benchmark to per-sample scores of the base model, in [0, 1].
        after: The same samples after the last stage.
        draws: Bootstrap resamples.
        extra: Additional entries for a benchmark's passport.
        names: The required benchmarks; by default those of either side.

    Returns:
        A passport for the mean, with one for each benchmark under ``benchmarks``; in percentage
        points.
    """
    parts, resampled = {}, []
    needed = sorted(before.keys() | after.keys() if names is None else names)
    missing = [name for name in needed if name not in before or name not in after]
    for name in [b for b in before if b in after]:
        difference = 100 * (after[name] - before[name])
        drawn = bootstrap_means(difference[None], draws, seed=name)[:, 0]
        resampled.append(drawn)
        parts[name] = {
            "value": rounded(float(difference.mean())),
            "before": rounded(float(100 * before[name].mean())),
            "after": rounded(float(100 * after[name].mean())),
            "n": len(difference),
            "interval": interval(drawn)._asdict(),
            **extra(name),
        }
    whole = bool(parts) and not missing
    return passport(
        float(np.mean([p["value"] for p in parts.values()])) if whole else None,
        title="change of general capability",
        formula="mean_b (G[T][b] - G[0][b])",
        sign="negative = general capability was lost",
        divisor=len(parts) if whole else None,
        n=sum(p["n"] for p in parts.values()) if whole else None,
        interval=interval(np.mean(resampled, axis=0)) if whole else None,
        source="TRACE (Wang et al. 2023), general-ability delta; paired by sample",
        missing=() if whole else missing or ["general benchmarks: none was measured"],
        benchmarks=parts,
    )
