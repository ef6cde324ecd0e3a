"""Intervals: over test samples by bootstrap, over seeds or orders by t; never mixed.

Which bootstrap: a mean, or a difference of means, has the percentile interval. A drop from a *peak*
needs another one, because the maximum of noisy accuracies is too high on average, and its bootstrap
replicates are too high again: percentiles would count the bias twice instead of removing it, and if
several rows are near the peak they miss the true value most of the time (the figures are in
``docs/metrics.md``, from ``benchmarks/coverage.py``). For drops, the errors of the resamples are
subtracted (the 'basic' interval of Davison & Hinkley 1997, eq. 5.6), once from the measured R and
once from R with rows within one standard error of the peak raised to it (the worst case for the
bias), and the interval spans both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cpt_bench.metrics.matrix import Array, rounded

DRAWS = 10_000
"""Number of bootstrap resamples for each interval."""

NEAR = 1.5
"""Standard errors within which a row counts as tied with the peak; see benchmarks/coverage.py."""

PAIRED = "paired bootstrap over test samples, stratified by task"
PAIRED_PEAK = f"{PAIRED}; basic, peaks tied within {NEAR} standard errors levelled"
LEVEL = 0.95


class Interval(NamedTuple):
    """An interval, and what it is over: samples, seeds or orders.

    Attributes:
        low: Its lower end, in the number's unit.
        high: Its upper end.
        level: The share of such intervals that contain the true value, in (0, 1).
        method: What varied, and how the interval was computed.
    """

    low: float
    high: float
    level: float = LEVEL
    method: str = PAIRED


def bootstrap_means(scores: Array, draws: int, seed: str) -> Array:
    """Means of ``scores`` on resamples of its columns, the same resamples for every row.

    Args:
        scores: Shape (rows, n): one row per model, one column per test sample.
        draws: Number of resamples, B.
        seed: The seed of the random numbers.

    Returns:
        Shape (B, rows).
    """
    n = scores.shape[1]
    rng = np.random.default_rng(list(seed.encode()))
    # Samples with the same scores in every row are interchangeable: it is enough to draw how often
    # each distinct column occurs, and right/wrong tables have few distinct columns.
    distinct, times = np.unique(scores, axis=1, return_counts=True)
    if distinct.shape[1] * 8 < n:
        counts = rng.multinomial(n, times / n, size=draws)
        return np.asarray(counts @ distinct.T / n, dtype=np.float64)
    out = np.empty((draws, len(scores)))
    columns = np.ascontiguousarray(scores.T)
    chunk = max(1, min(draws, 2_000_000 // n))  # 16 MB of indices at a time
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        chosen = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=size * n).reshape(size, n)
        out[start : start + size] = counts @ columns / n
    return out


def interval(draws: Array, level: float = LEVEL, method: str = PAIRED) -> Interval:
    """The central ``level`` of bootstrap ``draws``: right for means and their differences."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(rounded(float(low)), rounded(float(high)), level, method)


def sample_interval(
    value: float, errors: Sequence[Array], peak: bool, level: float = LEVEL
) -> Interval:
    """The interval of a number, from the errors of its resamples.

    Args:
        value: The number.
        errors: Each of shape (B,): resampled minus computed. One array; with ``peak`` two, from
            :func:`peak_errors`.
        peak: Whether the number is a drop from a peak.
        level: The interval's level.
    """
    if not peak:
        return interval(value + errors[0], level)
    tail = (1 - level) / 2
    ends = np.array([np.quantile(e, [tail, 1 - tail]) for e in errors])
    low, high = value - ends[:, 1].max(), value - ends[:, 0].min()
    return Interval(rounded(float(low)), rounded(float(high)), level, PAIRED_PEAK)


def peak_errors(
    accuracy: Array,
    resampled: Array,
    rows: Sequence[range],
    number: Callable[[Array], Array],
) -> tuple[Array, Array]:
    """The errors of a drop from a peak, from the measured R and from R with near ties levelled.

    Args:
        accuracy: R, shape (T+1, T).
        resampled: R on bootstrap resamples, shape (B, T+1, T).
        rows: For each column, the rows among which the peak is found (may be empty).
        number: R of shape (..., T+1, T) -> the number, shape (...).

    Returns:
        Two arrays of shape (B,).
    """
    levelled = accuracy.copy()
    for j, candidates in enumerate(rows):
        if not candidates:
            continue
        here = slice(candidates.start, candidates.stop)
        column, drawn = accuracy[here, j], resampled[:, here, j]
        peak = int(column.argmax())
        noise = (drawn - drawn[:, [peak]]).std(axis=0)
        levelled[here, j] = np.where(column[peak] - column <= NEAR * noise, column[peak], column)
    plain = number(resampled) - number(accuracy)
    return plain, number(resampled - accuracy + levelled) - number(levelled)


def t_interval(values: Sequence[float], over: str, level: float = LEVEL) -> Interval | None:
    """The interval of a mean over independent repetitions; None for fewer than two.

    Args:
        values: One number per repetition.
        over: What was repeated: ``seeds`` or ``orders``.
        level: The interval's level.
    """
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile((1 + level) / 2, n - 1) * deviation / math.sqrt(n)
    return Interval(rounded(mean - half), rounded(mean + half), level, f"t over {n} {over}")


def welch_interval(
    first: Sequence[float], second: Sequence[float], over: str, level: float = LEVEL
) -> Interval | None:
    """The interval of mean(first) - mean(second), repeated independently (Welch 1947)."""
    if len(first) < 2 or len(second) < 2:
        return None
    variances = [float(np.var(v, ddof=1)) / len(v) for v in (first, second)]
    error = math.sqrt(sum(variances))
    difference = math.fsum(first) / len(first) - math.fsum(second) / len(second)
    if error == 0:
        degrees = float(len(first) + len(second) - 2)
    else:
        parts = (v**2 / (len(s) - 1) for v, s in zip(variances, (first, second), strict=True))
        degrees = sum(variances) ** 2 / sum(parts)
    half = t_quantile((1 + level) / 2, degrees) * error
    method = f"Welch's t over {len(first)} and {len(second)} {over}"
    return Interval(rounded(difference - half), rounded(difference + half), level, method)


def t_quantile(p: float, degrees: float) -> float:
    """The ``p`` quantile of Student's t, p in [0.5, 1), ``degrees`` > 0; exact to 1e-9.

    The core does not depend on SciPy. P(|t| > x) is the regularised incomplete beta function
    I(v / (v + x^2); v/2, 1/2), inverted here by bisection.
    """
    low, high = 0.0, 1.0
    while 1 - _t_tail(high, degrees) < p:
        low, high = high, 2 * high
    while high - low > 1e-11 * max(1.0, high):
        middle = (low + high) / 2
        if 1 - _t_tail(middle, degrees) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_tail(x: float, degrees: float) -> float:
    """P(t > x) for x >= 0."""
    at = degrees / (degrees + x * x)
    return 0.5 * _incomplete_beta(degrees / 2, 0.5, at)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I(x; a, b) by its continued fraction (Abramowitz & Stegun 26.5.8, Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    total = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            total *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * total / a


def exact_sign_test(wins: int, losses: int) -> float:
    """The two-sided exact sign test; on two models' right and wrong it is exact McNemar.

    Args:
        wins: Samples on which the first is better.
        losses: Samples on which the second is better.

    Returns:
        p in [0, 1]: the probability of a split at least as uneven when both are equally likely.
    """
    n, k = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    term = tail = 1
    for i in range(1, k + 1):
        term = term * (n - i + 1) // i
        tail += term
    return min(1.0, 2 * tail / (1 << n))  # integers: exact however many samples


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment of several ``p_values``, in the same order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted
