"""Intervals: against tables, against each other, and against simulated truth."""

from __future__ import annotations

import math
import time
from statistics import NormalDist

import numpy as np
import pytest

from cpt_bench.metrics import (
    Matrix,
    bootstrap_means,
    evaluate,
    exact_sign_test,
    holm,
    t_interval,
    t_quantile,
)
from cpt_bench.metrics.intervals import welch_interval


@pytest.mark.parametrize(
    ("p", "degrees", "expected"),
    [  # scipy.stats.t.ppf
        (0.975, 1, 12.7062047), (0.975, 2, 4.30265273), (0.975, 4, 2.77644511),
        (0.975, 29, 2.04522964), (0.95, 10, 1.81246112), (0.995, 3, 5.84090931),
        (0.975, 2.5, 3.57465484), (0.5, 7, 0.0),
    ],
)  # fmt: skip
def test_students_t(p: float, degrees: float, expected: float) -> None:
    assert t_quantile(p, degrees) == pytest.approx(expected, abs=1e-7)


def test_t_becomes_normal() -> None:
    assert t_quantile(0.975, 1e7) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-5)


def test_t_intervals_over_seeds_by_hand() -> None:
    bounds = t_interval([1.0, 2.0, 3.0], "seeds")
    assert bounds is not None and bounds.method == "t over 3 seeds"
    half = 4.30265273 * 1 / math.sqrt(3)
    assert (bounds.low, bounds.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert t_interval([1.0], "seeds") is None and t_interval([], "orders") is None


def test_welch_by_hand() -> None:
    bounds = welch_interval([1, 2, 3], [4, 6, 8, 10], "seeds")
    assert bounds is not None
    variance = 1 / 3 + (20 / 3) / 4
    degrees = variance**2 / ((1 / 3) ** 2 / 2 + (5 / 3) ** 2 / 3)
    half = t_quantile(0.975, degrees) * math.sqrt(variance)
    assert (bounds.low, bounds.high) == (pytest.approx(-5 - half), pytest.approx(-5 + half))
    assert welch_interval([1], [1, 2], "seeds") is None


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (10, 0, 2 / 1024), (8, 2, 112 / 1024), (1, 0, 1.0)],
)
def test_mcnemar_exact_by_hand(wins: int, losses: int, p: float) -> None:
    assert exact_sign_test(wins, losses) == pytest.approx(p)
    assert exact_sign_test(losses, wins) == pytest.approx(p)


def test_mcnemar_of_many_samples_is_near_the_normal() -> None:
    wins, losses = 2600, 2400
    z = (wins - losses - 1) / math.sqrt(wins + losses)
    assert exact_sign_test(wins, losses) == pytest.approx(2 * NormalDist().cdf(-z), rel=2e-3)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_both_ways_to_resample_agree() -> None:
    """Few distinct columns are drawn by how often each occurs, many one by one: same spread."""
    rng = np.random.default_rng(0)
    n, few = 2000, (rng.random((3, 2000)) < 0.6).astype(float)
    many = few + 1e-9 * rng.random((3, n))  # all columns distinct, values the same
    for scores in (few, many):
        drawn = bootstrap_means(scores, 4000, seed="x")
        assert drawn.shape == (4000, 3)
        assert drawn.mean(axis=0) == pytest.approx(few.mean(axis=1), abs=0.001)
        expected = np.cov(few, bias=True) / n
        assert np.cov(drawn.T) == pytest.approx(expected, abs=0.06 * expected.max())


def test_rows_are_resampled_alike() -> None:
    rng = np.random.default_rng(1)
    for n in (40, 3000):
        row = (rng.random(n) < 0.5).astype(float)
        drawn = bootstrap_means(np.stack([row, row, 1 - row]), 500, seed="t")
        assert np.array_equal(drawn[:, 0], drawn[:, 1])
        assert drawn[:, 0] + drawn[:, 2] == pytest.approx(np.ones(500))


def test_a_missing_row_leaves_the_others_their_intervals() -> None:
    rng = np.random.default_rng(2)
    right = (rng.random((4, 3, 200)) < 0.6).astype(float)
    right[3, 0] = np.nan
    matrix = Matrix(("a", "b", "c"), 100 * right.mean(axis=-1))
    drawn = [bootstrap_means(100 * right[:, j], 500, seed=f"t{j}") for j in range(3)]
    values = evaluate(matrix, [200] * 3, np.stack(drawn, axis=-1))
    assert values["AvgAcc"]["value"] is None and values["AvgAcc"]["interval"] is None
    bounds = values["Learn"]["interval"]
    assert bounds["low"] < values["Learn"]["value"] < bounds["high"]


def simulate(truth: np.ndarray, n: int, rng: np.random.Generator, rho: float = 0.8) -> np.ndarray:
    """Right or wrong, shape (T+1, T, n): models share what makes a sample hard (probit)."""
    inverse = np.vectorize(NormalDist().inv_cdf)
    shape = (*truth.shape, n)
    hard = rng.standard_normal((1, truth.shape[1], n))
    own = rng.standard_normal(shape)
    return (inverse(truth)[..., None] + rho * hard + math.sqrt(1 - rho**2) * own > 0).astype(float)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """A small version of benchmarks/coverage.py: 120 simulated runs, wide limits."""
    tasks, runs = 4, 120
    truth = np.full((tasks + 1, tasks), 0.35)
    for j in range(tasks):
        truth[j + 1 :, j] = 0.7  # after learning nothing changes: every row is a tied peak
    rng, held = np.random.default_rng(3), dict.fromkeys(("AvgAcc", "BWT", "FM", "Gain"), 0)
    exact = evaluate(Matrix(("a", "b", "c", "d"), 100 * truth))
    for _ in range(runs):
        right = simulate(truth, 200, rng)
        matrix = Matrix(("a", "b", "c", "d"), 100 * right.mean(axis=-1))
        drawn = [bootstrap_means(100 * right[:, j], 400, seed=str(j)) for j in range(tasks)]
        values = evaluate(matrix, [200] * tasks, np.stack(drawn, axis=-1))
        for key in held:
            bounds = values[key]["interval"]
            held[key] += bounds["low"] - 1e-9 <= exact[key]["value"] <= bounds["high"] + 1e-9
    # Four standard errors of a share of 0.95; percentile intervals of FM hold about half here.
    for key, count in held.items():
        assert count / runs >= 0.87, (key, count / runs)


def test_the_bootstrap_is_quick_enough_for_the_real_suite() -> None:
    """One task of 8 stages and 5,000 samples, 10,000 resamples; no speed asserted but a hang."""
    rng = np.random.default_rng(4)
    start = time.monotonic()
    bootstrap_means((rng.random((8, 5000)) < 0.5).astype(float), 10_000, seed="x")
    assert time.monotonic() - start < 60
