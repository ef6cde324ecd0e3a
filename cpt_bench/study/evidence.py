"""Kinds of evidence: points -> one number with an interval, or what is missing; pure functions.

A method is named by its trainer (``sft``, ``rft-grpo``, ``replay``), at its recipe's learning rate,
or at another one after an at sign (``sft@1e-4``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.metrics import Interval, rounded, t_interval
from cpt_bench.study import laws, pareto
from cpt_bench.study.points import Point, Points

SEEDS: Final = 3
"""The number of seeds that a verdict over seeds needs."""
ORDERS: Final = 3


class Evidence(NamedTuple):
    """The result for one claim.

    Attributes:
        value: The number; None if something is missing.
        interval: The number's interval.
        runs: The number of runs used.
        unit: The number's unit.
        missing: What is missing, if the number is None.
        details: More to show: values by seed, the level of learning; ``least`` and ``most`` if the
            number is a mean over levels or orders.
        repeated: Over how many repetitions the interval is Student's; None if it is another kind.
        over: What was repeated: ``seeds`` or ``orders``.
    """

    value: float | None
    interval: Interval | None
    runs: int
    unit: str = "percentage points"
    missing: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012 - never changed
    repeated: int | None = None
    over: str = ""


def absent(what: str, runs: int = 0) -> Evidence:
    return Evidence(None, None, runs, missing=what)


def chosen(points: Points, method: str, order: Any = None) -> list[Point]:
    """The runs that ``sft`` or ``sft@1e-4`` names."""
    name, _, rate = method.partition("@")
    return points.of(name, float(rate) if rate else None, order)


def by_seed(found: list[Point], key: str) -> dict[int, float]:
    known = {p.seed: p.numbers.get(key) for p in found}
    return {seed: value for seed, value in known.items() if value is not None}


def too_few(method: str, key: str, found: dict[int, float]) -> str:
    return f"{method} has {len(found)} of {SEEDS} seeds with {key}"


# ------------------------------------------------------------------------------------ over seeds


def level(points: Points, key: str, method: str) -> Evidence:
    """A method's number: mean over seeds, t-interval."""
    values = by_seed(chosen(points, method), key)
    if len(values) < SEEDS:
        return absent(too_few(method, key, values), len(values))
    return _over_seeds(values)


def difference(points: Points, key: str, first: str, second: str) -> Evidence:
    """The first method's number minus the second's, paired by seed; t-interval over seeds."""
    a, b = (by_seed(chosen(points, method), key) for method in (first, second))
    common = sorted(a.keys() & b.keys())
    if len(common) < SEEDS:
        lacking = [too_few(m, key, f) for m, f in ((first, a), (second, b)) if len(f) < SEEDS]
        why = "; ".join(lacking) or f"{first} and {second} have {len(common)} seeds in common"
        return absent(why, len(a) + len(b))
    return _over_seeds({seed: a[seed] - b[seed] for seed in common}, 2)


def ratio(points: Points, key: str, first: str, second: str) -> Evidence:
    """The first method's number as a share of the second's, by seed; t-interval over seeds."""
    a, b = (by_seed(chosen(points, method), key) for method in (first, second))
    common = [seed for seed in sorted(a.keys() & b.keys()) if b[seed] != 0]
    if len(common) < SEEDS:
        lacking = [too_few(m, key, f) for m, f in ((first, a), (second, b)) if len(f) < SEEDS]
        return absent("; ".join(lacking) or f"{second}: {key} is 0", len(a) + len(b))
    return _over_seeds({seed: a[seed] / b[seed] for seed in common}, 2, "share")


def share(points: Points, parts: list[str], whole: str, method: str) -> Evidence:
    """The parts' sum as a share of the whole, of one method; t-interval over seeds."""
    found = chosen(points, method)
    values = {}
    for point in found:
        of, terms = point.numbers.get(whole), [point.numbers.get(part) for part in parts]
        if of and None not in terms:
            values[point.seed] = sum(t for t in terms if t is not None) / of
    if len(values) < SEEDS:
        return absent(too_few(method, " and ".join(parts), values), len(found))
    return _over_seeds(values, unit="share")


def _over_seeds(
    values: dict[int, float], sides: int = 1, unit: str = "percentage points"
) -> Evidence:
    numbers = [*values.values()]
    details = {"by_seed": {str(seed): rounded(v) for seed, v in values.items()}}
    return Evidence(
        rounded(float(np.mean(numbers))), t_interval(numbers, "seeds"), sides * len(numbers), unit,
        details=details, repeated=len(numbers), over="seeds",
    )  # fmt: skip


# ----------------------------------------------------------------------------------- over orders


def orders(points: Points, key: str, first: str, second: str) -> Evidence:
    """The difference of two methods in each task order; t-interval over orders."""
    found, runs = [], 0
    for order in points.orders():
        a, b = (by_seed(chosen(points, method, order), key) for method in (first, second))
        common = sorted(a.keys() & b.keys())
        if common:
            found.append(float(np.mean([a[seed] - b[seed] for seed in common])))
            runs += 2 * len(common)
    if len(found) < ORDERS:
        return absent(f"{first} and {second} have {len(found)} of {ORDERS} orders", runs)
    ends = {"least": rounded(min(found)), "most": rounded(max(found))}
    details = {"by_order": [rounded(v) for v in found], **ends}
    return Evidence(
        rounded(float(np.mean(found))), t_interval(found, "orders"), runs, details=details,
        repeated=len(found), over="orders",
    )  # fmt: skip


# ----------------------------------------------------------------------------- over learning rates


def matched(points: Points, key: str, first: str, second: str) -> Evidence:
    """The first method's number minus the second's at equal learning."""
    sides = {
        method: pareto.settings([p for p in points.used if _curve(points, p, method)], key)
        for method in (first, second)
    }
    lacking = [why for method, found in sides.items() if (why := pareto.missing(method, found))]
    runs = sum(len(s.runs) for found in sides.values() for s in found)
    if lacking:
        return absent("; ".join(lacking), runs)
    found = pareto.matched(sides[first], sides[second])
    if found is None:
        return absent("one of the two has learned nothing", runs)
    details = {"learned_by_both": found.level, "least": found.least, "most": found.most}
    return Evidence(found.value, found.interval, found.runs, details=details)


def _curve(points: Points, point: Point, method: str) -> bool:
    return point.method == method and point.order == points.suite.sequence


# ------------------------------------------------------------------------------------------ laws


def among(points: Points, methods: str) -> list[Point]:
    """Runs that train stage by stage: ``all``, only ``rewarded``, or only ``taught`` ones.

    Raises:
        CptBenchError: It is none of these.
    """
    wanted = {"all": (True, False), "rewarded": (True,), "taught": (False,)}
    if methods not in wanted:
        todo = did_you_mean(methods, [*wanted])
        raise CptBenchError(f"no methods are called {methods!r}", where="methods", todo=todo)
    return [p for p in points.used if p.rewarded in wanted[methods] and not p.joint]


def law(points: Points, x: str, y: str, methods: str, stages: str = "all") -> Evidence:
    """R² of forgetting (``general`` or ``tasks``) on a quantity of each stage.

    ``stages`` is ``all``, or ``first``: one task learned from the base.
    """
    runs, first = among(points, methods), stages == "first"
    found = laws.fit(runs, x, y, first)
    if found is None:
        have = len(laws.table(runs, (x, y), first))
        return Evidence(None, None, have, "R²", f"{have} of {laws.RUNS} runs with {x} and {y}")
    details = {"coefficients": list(found.coefficients), "points": len(found.points)}
    return Evidence(found.r2, found.interval, found.runs, "R²", details=details)


def law_gap(
    points: Points, first: str, second: str, y: str, methods: str, stages: str = "all"
) -> Evidence:
    """R² of one law minus that of another, on the same stages."""
    runs, only = among(points, methods), stages == "first"
    found = laws.gap(runs, first, second, y, only)
    if found is None:
        have = len(laws.table(runs, (first, second, y), only))
        why = f"{have} of {laws.RUNS} runs with both {first} and {second}"
        return Evidence(None, None, have, "R²", why)
    return Evidence(*found, "R²")


KINDS: Final[dict[str, Callable[..., Evidence]]] = {
    "level": level,
    "difference": difference,
    "ratio": ratio,
    "share": share,
    "orders": orders,
    "matched": matched,
    "law": law,
    "law_gap": law_gap,
}


def find(points: Points, asked: dict[str, Any], where: object) -> Evidence:
    """A claim's evidence, declared as ``{kind: difference, key: FM, first: …, second: …}``.

    Raises:
        CptBenchError: There is no such kind, or its arguments are wrong.
    """
    kind = str(asked.get("kind"))
    if kind not in KINDS:
        todo = did_you_mean(kind, [*KINDS])
        raise CptBenchError(f"no kind of evidence is called {kind!r}", where=where, todo=todo)
    try:
        return KINDS[kind](points, **{k: v for k, v in asked.items() if k != "kind"})
    except TypeError as error:
        line = str(error).partition("() ")[2] or str(error)
        raise CptBenchError(f"evidence {kind}: {line}", where=where) from None
