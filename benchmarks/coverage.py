"""How often the 95 % intervals hold the truth, on simulated runs whose truth is known.

    python benchmarks/coverage.py --runs 1000

A simulated run has T = 7 tasks of n = 300 test samples and 8 models. What makes a sample hard is
shared by all models (probit, correlation 0.8 between two models' answers), so that rows are as
dependent as real ones. Truths: ``decay`` forgets 5 points a stage, ``slow`` 1, ``plateau`` none
after learning (every row is a tied peak: the worst case for a maximum), ``late`` gains 3 points a
stage, ``nano`` is the matrix that a run of nano's rft recipe measured. ``difference`` is between
two methods on the same samples, ``seeds`` the t-interval over 3 seeds whose truths vary by 2
points.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from statistics import NormalDist

import numpy as np

from cpt_bench.metrics import (
    Matrix,
    bootstrap_means,
    evaluate,
    interval,
    sample_interval,
    t_interval,
)
from cpt_bench.metrics.definitions import BY_KEY
from cpt_bench.metrics.passports import errors
from cpt_bench.results.compare import errors_apart

TASKS = tuple("abcdefg")
T = len(TASKS)
KEYS = (
    "AvgAcc",
    "Learn",
    "MAA",
    "FM",
    "FM_base",
    "FM_seen",
    "FM_paper",
    "BWT",
    "BWT_all",
    "FWT",
    "Gain",
)
COMPARED = ("AvgAcc", "Learn", "FM", "BWT")
RHO = 0.8
NANO = [
    [29.0, 32.3, 57.0, 11.3, 32.0, 46.0, 45.0],
    [61.3, 34.3, 60.3, 34.0, 32.3, 46.0, 40.7],
    [60.0, 40.7, 60.0, 30.7, 30.0, 43.0, 41.3],
    [54.3, 39.0, 67.0, 26.3, 29.7, 44.3, 37.7],
    [58.7, 38.7, 64.0, 50.3, 26.7, 47.0, 41.7],
    [58.7, 41.0, 63.3, 51.7, 33.3, 47.7, 41.7],
    [61.0, 39.0, 58.3, 33.3, 25.3, 49.0, 37.7],
    [54.3, 35.7, 61.3, 22.7, 26.3, 50.7, 42.3],
]  # cptbench run --trainer rft


def truth(kind: str) -> np.ndarray:
    if kind == "nano":
        return np.array(NANO) / 100
    out = np.full((T + 1, T), 0.35)
    for j in range(T):
        later = np.arange(T - j)
        rows = {
            "decay": 0.75 - 0.05 * later,
            "slow": 0.70 - 0.01 * later,
            "plateau": 0.70 + 0 * later,
            "late": 0.6 + 0.03 * later,
        }
        out[j + 1 :, j] = rows[kind]
    return out


def answers(p: np.ndarray, hard: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Right or wrong, shape (T+1, T, n)."""
    threshold = np.vectorize(NormalDist().inv_cdf)(p)[..., None]
    own = rng.standard_normal((*p.shape, hard.shape[-1]))
    return (threshold + RHO * hard + math.sqrt(1 - RHO**2) * own > 0).astype(float)


def resample(*runs: np.ndarray, draws: int) -> list[np.ndarray]:
    """R on resamples of each run, all resampled alike: shape (draws, T+1, T)."""
    columns = [
        bootstrap_means(100 * np.vstack([r[:, j] for r in runs]), draws, seed=TASKS[j])
        for j in range(T)
    ]
    stacked = np.stack(columns, axis=-1)
    return np.split(stacked, len(runs), axis=1)


def simulate(kind: str, runs: int, n: int, draws: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    p = truth(kind)
    other = np.clip(p - 0.03, 0.02, 0.98)  # the second method: 3 points lower everywhere
    exact = {k: float(BY_KEY[k].number(100 * p, Matrix(TASKS, 100 * p))) for k in KEYS}
    exact_other = {
        k: float(BY_KEY[k].number(100 * other, Matrix(TASKS, 100 * other))) for k in KEYS
    }
    held: dict[str, int] = {}

    def count(name: str, bounds: object, value: float) -> None:
        low, high = bounds["low"], bounds["high"]  # type: ignore[index]
        held[name] = held.get(name, 0) + (low - 1e-9 <= value <= high + 1e-9)

    for _ in range(runs):
        hard = rng.standard_normal((1, T, n))
        first, second = answers(p, hard, rng), answers(other, hard, rng)
        matrices = [Matrix(TASKS, 100 * r.mean(axis=-1)) for r in (first, second)]
        drawn = resample(first, second, draws=draws)
        values = evaluate(matrices[0], [n] * T, drawn[0])
        for key in KEYS:
            count(key, values[key]["interval"], exact[key])
        plain = errors(BY_KEY["FM"], matrices[0], drawn[0])[0]
        naive = interval(values["FM"]["value"] + plain)
        count("FM percentile", naive._asdict(), exact["FM"])
        for key in COMPARED:
            metric = BY_KEY[key]
            numbers = [float(metric.number(m.accuracy, m)) for m in matrices]
            apart = errors_apart(
                *(errors(metric, m, d) for m, d in zip(matrices, drawn, strict=True))
            )
            bounds = sample_interval(numbers[0] - numbers[1], apart, metric.peak is not None)
            count(f"difference {key}", bounds._asdict(), exact[key] - exact_other[key])
        seeds = t_interval(list(exact["AvgAcc"] + 2 * rng.standard_normal(3)), "seeds")
        assert seeds is not None
        count("seeds (t, 3)", seeds._asdict(), exact["AvgAcc"])
    return {key: round(100 * c / runs, 1) for key, c in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--truths", default="nano,decay,slow,plateau,late")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    table = {}
    for kind in given.truths.split(","):
        start = time.process_time()
        table[kind] = simulate(kind, given.runs, given.samples, given.draws, given.seed)
        if not given.json:
            spent = time.process_time() - start
            print(f"{kind}: {given.runs} runs, {spent:.0f} s of CPU", flush=True)
            for key, share in table[kind].items():
                print(f"  {key:<18} {share:5.1f} %", flush=True)
    if given.json:
        print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
