"""Compares methods: numbers with intervals, paired differences, and verdicts that include ties.

Three sources of chance are treated separately. Over *samples*: all runs are resampled in the same
way (paired bootstrap), and a method's number is the mean over its seeds. Over *seeds*: Student's t
over the seeds' numbers, paired by seed in a difference if two methods have the same seeds, Welch's
otherwise; one seed gives no interval. Over *orders*: t over the orders' means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpt_bench.metrics import (
    DRAWS,
    METRICS,
    Array,
    Interval,
    bootstrap_means,
    exact_sign_test,
    holm,
    rounded,
    sample_interval,
    t_interval,
)
from cpt_bench.metrics.definitions import BY_KEY
from cpt_bench.metrics.intervals import welch_interval
from cpt_bench.metrics.passports import errors
from cpt_bench.results.load import Method, Run, costs, methods

KEYS = (*(m.key for m in METRICS), "GeneralDelta")
"""The metrics that are compared; their definitions are in ``docs/metrics.md``."""

PEAKS = {m.key for m in METRICS if m.peak is not None}


class Number(NamedTuple):
    """One run's number (None: why not in ``missing``) and the errors of its resamples."""

    value: float | None
    errors: tuple[Array, ...]
    missing: tuple[str, ...]


Numbers = dict[str, list[Number]]
"""Key to one number a run."""


def compare(runs: Sequence[Run], draws: int = DRAWS) -> dict[str, Any]:
    """The results of ``cptbench compare``, as JSON.

    Returns:
        ``methods`` (each with its numbers), ``pairs`` (differences of methods in the same order
        and from the same base model),
        ``orders`` (if a method has several), ``missing`` cells by run.
    """
    found = methods(runs)
    drawn = _resample(runs, draws)
    numbers = {m.name: _numbers(m, drawn) for m in found}
    letters = list(dict.fromkeys(m.order for m in found))
    pairs = [
        _pair(a, b, numbers[a.name], numbers[b.name])
        for a, b in combinations(found, 2)
        if a.order == b.order and a.start == b.start
    ]
    suite = runs[0].suite
    return {
        "suite": {"name": suite.name, "version": suite.version},
        "general": list(suite.general),
        "limit": runs[0].record.get("limit"),
        "level": 0.95,
        "orders": {chr(65 + i % 26): list(order) for i, order in enumerate(letters)},
        "methods": [_method(m, numbers[m.name]) for m in found],
        "pairs": pairs,
        "to_joint": _to_joint(found, numbers),
        "over_orders": _over_orders(found, numbers),
        "versions_differ": _versions_differ(runs),
        "missing": {r.folder.name: gaps for r in runs if (gaps := r.scores.missing())},
    }


def _versions_differ(runs: Sequence[Run]) -> list[str]:
    """Packages whose versions differ between runs, which alone may change the numbers."""
    found = [run.record.get("versions") or {} for run in runs]
    return sorted({k for v in found for k in v if any(o.get(k) != v[k] for o in found)})


# ------------------------------------------------------------------------------------- resampling


class Drawn(NamedTuple):
    """One run resampled: R, shape (B, T+1, T), and each general benchmark's change, shape (B,).

    NaN where a cell is missing.
    """

    r: Array
    general: list[Array]


def _resample(runs: Sequence[Run], draws: int) -> dict[Path, Drawn]:
    """All runs' rows resampled together, so that differences are taken on the same samples."""
    suite = runs[0].suite
    tasks: dict[str, list[Array]] = {}
    for task in suite.sequence:
        rows = np.vstack([100 * run.scores.outcomes[task].strict for run in runs])
        tasks[task] = np.split(bootstrap_means(rows, draws, seed=task), len(runs), axis=1)
    general = []
    for name in suite.general:
        ends = [100 * run.scores.outcomes[name].strict[[0, -1]] for run in runs]
        changes = np.vstack([np.diff(pair, axis=0) for pair in ends])
        general.append(bootstrap_means(changes, draws, seed=name))
    return {
        run.folder: Drawn(
            np.stack([tasks[task][i] for task in run.suite.sequence], axis=-1),
            [drawn[:, i] for drawn in general],
        )
        for i, run in enumerate(runs)
    }


def _numbers(method: Method, drawn: dict[Path, Drawn]) -> Numbers:
    out: Numbers = {key: [] for key in KEYS}
    for run in method.runs:
        mine = drawn[run.folder]
        for key in KEYS:
            found = run.scores.metrics[key]
            value, missing = found["value"], tuple(found.get("missing", ()))
            made: tuple[Array, ...] = ()
            if value is not None:
                made = (
                    (np.mean(mine.general, axis=0) - value,)
                    if key == "GeneralDelta"
                    else errors(BY_KEY[key], run.scores.matrix, mine.r)
                )
            out[key].append(Number(value, made, missing))
    return out


# ---------------------------------------------------------------------------------------- numbers


def _mean_errors(numbers: Sequence[Number]) -> tuple[Array, ...]:
    parts = zip(*(n.errors for n in numbers), strict=True)
    return tuple(np.mean(part, axis=0) for part in parts)


def _json(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval._asdict()


def _method(method: Method, numbers: Numbers) -> dict[str, Any]:
    record = method.runs[0].record
    learned = (record.get("config") or {}).get("learning_rate")
    spent = [costs(run) for run in method.runs]
    return {
        "name": method.name,
        "kind": method.kind,
        "trainer": record.get("trainer"),
        "learning_rate": learned,
        "lane": record.get("lane", "trainer"),
        "base": method.runs[0].base,
        "privileges": record.get("privileges"),
        "order": list(method.order),
        "seeds": [run.seed for run in method.runs],
        "runs": [run.folder.name for run in method.runs],
        "numbers": {
            key: _number(key, found, [r.folder.name for r in method.runs])
            for key, found in numbers.items()
        },
        "costs": {key: _mean([c[key] for c in spent]) for key in spent[0] if key != "device"},
        "device": spent[0]["device"],
    }


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(sum(known) / len(known), 1) if known and len(known) == len(values) else None


def _number(key: str, found: list[Number], runs: list[str]) -> dict[str, Any]:
    missing = [f"{r}: {m}" for r, n in zip(runs, found, strict=True) for m in n.missing]
    values = [n.value for n in found]
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return {"value": None, "missing": missing, "by_seed": values,
                "over_samples": None, "over_seeds": None}  # fmt: skip
    value = sum(known) / len(known)
    over_samples = sample_interval(value, _mean_errors(found), key in PEAKS)
    return {
        "value": rounded(value),
        "by_seed": values,
        "over_samples": _json(over_samples),
        "over_seeds": _json(t_interval(known, "seeds")),
    }


# ------------------------------------------------------------------------------------ differences


def _pair(a: Method, b: Method, of_a: Numbers, of_b: Numbers) -> dict[str, Any]:
    return {
        "first": a.name,
        "second": b.name,
        "differences": {key: difference(key, a, b, of_a[key], of_b[key]) for key in KEYS},
        "tasks": mcnemar(a, b),
    }


def difference(
    key: str, a: Method, b: Method, of_a: list[Number], of_b: list[Number]
) -> dict[str, Any]:
    """The first's number minus the second's, with both intervals and the verdict.

    Returns:
        ``value``, ``over_samples``, ``over_seeds`` and ``verdict``: ``tie`` if either interval
        contains 0; else ``higher`` or ``lower``, where ``over`` lists the kinds of interval.
    """
    values_a, values_b = ([n.value for n in found] for found in (of_a, of_b))
    if None in values_a or None in values_b:
        missing = [m for n in (*of_a, *of_b) for m in n.missing]
        return {"value": None, "over_samples": None, "over_seeds": None, "verdict": None,
                "over": [], "missing": missing}  # fmt: skip
    first, second = ([float(v) for v in vs if v is not None] for vs in (values_a, values_b))
    value = sum(first) / len(first) - sum(second) / len(second)
    drawn = errors_apart(_mean_errors(of_a), _mean_errors(of_b))
    over_samples = sample_interval(value, drawn, key in PEAKS)
    over_seeds = _over_seeds(a, b, first, second)
    shown = [o for o in (over_samples, over_seeds) if o is not None]
    tie = any(o.low <= 0 <= o.high for o in shown)
    return {
        "value": rounded(value),
        "over_samples": _json(over_samples),
        "over_seeds": _json(over_seeds),
        "verdict": "tie" if tie else "higher" if value > 0 else "lower",
        "over": ["samples"] + (["seeds"] if over_seeds is not None else []),
    }


def errors_apart(first: Sequence[Array], second: Sequence[Array]) -> list[Array]:
    """The errors of a difference, from the errors of its two sides on the same resamples.

    For drops from a peak each side has two: as measured, and with near ties levelled. The bias is
    similar on both sides, so each is paired with its counterpart.
    """
    return [a - b for a, b in zip(first, second, strict=True)]


def _over_seeds(a: Method, b: Method, first: list[float], second: list[float]) -> Interval | None:
    by_seed = [dict(zip((r.seed for r in m.runs), v, strict=True)) for m, v in
               ((a, first), (b, second))]  # fmt: skip
    # Paired on only some of the seeds, the interval would not belong to the number shown.
    if by_seed[0].keys() != by_seed[1].keys() or len(first) < 2:
        return welch_interval(first, second, "seeds")
    found = t_interval([by_seed[0][s] - by_seed[1][s] for s in by_seed[0]], "seeds")
    assert found is not None
    return found._replace(method=f"{found.method}, paired")


def mcnemar(a: Method, b: Method) -> dict[str, Any]:
    """Per task, after the last stage: on how many samples each is better, and the exact sign test.

    With one seed each this is McNemar's exact test. With several, a sample's score is its mean
    over the method's seeds and the test is the exact sign test over samples (McNemar's is its
    one-seed case): pooling the seeds' discordant pairs would count a sample several times.
    ``p_holm`` is adjusted for testing several tasks.
    """
    out: dict[str, Any] = {}
    for task in a.runs[0].suite.sequence:
        final = [
            np.mean([run.scores.outcomes[task].strict[-1] for run in m.runs], axis=0)
            for m in (a, b)
        ]
        if any(np.isnan(f).any() for f in final):
            out[task] = {"wins": None, "losses": None, "p": None, "p_holm": None}
            continue
        gap = final[0] - final[1]
        wins, losses = int((gap > 1e-9).sum()), int((gap < -1e-9).sum())
        out[task] = {"wins": wins, "losses": losses, "p": exact_sign_test(wins, losses)}
    tested = [task for task in out if out[task]["p"] is not None]
    for task, p in zip(tested, holm([out[t]["p"] for t in tested]), strict=True):
        out[task]["p_holm"] = p
    return out


def _to_joint(found: list[Method], numbers: dict[str, Numbers]) -> list[dict[str, Any]]:
    """``GapToJoint``, AvgAcc minus that of each joint run here, and ``CTM``, its share of it."""
    joint = [m for m in found if m.joint]
    return [
        {
            "method": m.name,
            "joint": j.name,
            "key": "GapToJoint",
            "formula": "AvgAcc - AvgAcc of the joint run",
            "sign": "negative = below training on all tasks at once",
            **difference("AvgAcc", m, j, numbers[m.name]["AvgAcc"], numbers[j.name]["AvgAcc"]),
            "CTM": share_of_joint(m, j, numbers[m.name]["AvgAcc"], numbers[j.name]["AvgAcc"]),
        }
        for m in found
        for j in joint
        if not m.joint and m.start == j.start
    ]


def share_of_joint(
    a: Method, b: Method, of_a: list[Number], of_b: list[Number]
) -> dict[str, Any] | None:
    """``CTM``: the first's AvgAcc as a share of the joint run's; None if a cell is missing.

    The interval over seeds is that of a ratio of means to first order: of the first's numbers minus
    the ratio times the joint run's, over the joint run's mean.
    """
    first, second = ([n.value for n in found if n.value is not None] for found in (of_a, of_b))
    below = sum(second) / len(second) if second else 0.0
    if len(first) < len(of_a) or len(second) < len(of_b) or below == 0:
        return None
    value = sum(first) / len(first) / below
    ends = zip(_mean_errors(of_a), _mean_errors(of_b), strict=True)
    drawn = [(value * below + up) / (below + down) - value for up, down in ends]
    seeds = _over_seeds(a, b, [v / below for v in first], [value * v / below for v in second])
    if seeds is not None:
        seeds = seeds._replace(low=rounded(value + seeds.low), high=rounded(value + seeds.high))
    return {
        "value": rounded(value),
        "formula": "AvgAcc / AvgAcc of the joint run",
        "sign": "1 = as accurate as training on all tasks at once",
        "source": "Continual Reasoning Gym (arXiv 2608.18574), continual training metric",
        "over_samples": _json(sample_interval(value, drawn, peak=False)),
        "over_seeds": _json(seeds),
    }


def worst(key: str) -> Callable[[Sequence[float]], float]:
    """The worse direction: ``min``, or ``max`` for numbers that grow with forgetting."""
    return max if key in BY_KEY and BY_KEY[key].sign.startswith("positive = forgot") else min


def _over_orders(found: list[Method], numbers: dict[str, Numbers]) -> dict[str, Any]:
    """For methods run in several orders: mean, worst and t-interval over the orders' means."""
    out: dict[str, Any] = {}
    for kind in dict.fromkeys(m.kind for m in found):
        mine = [m for m in found if m.kind == kind]
        if len(mine) < 2:
            continue
        out[kind] = {}
        for key in KEYS:
            per_order = [[n.value for n in numbers[m.name][key]] for m in mine]
            if any(v is None for values in per_order for v in values):
                continue
            means = [sum(v for v in vs if v is not None) / len(vs) for vs in per_order]
            out[kind][key] = {
                "value": rounded(sum(means) / len(means)),
                "by_order": [rounded(m) for m in means],
                "worst": rounded(worst(key)(means)),
                "over_orders": _json(t_interval(means, "orders")),
            }
    return out
