"""Claims in words, for the page: what was measured, and why a verdict is what it is."""

from __future__ import annotations

import re
from typing import Any, Final

from cpt_bench.study.claims import Claim
from cpt_bench.study.figures import LAWS

PREDICTORS: Final = {x: label for x, _, _, label in LAWS}
LOST: Final = {"general": "general capability", "tasks": "earlier tasks"}
AMONG: Final = {"all": "all methods", "rewarded": "RFT methods", "taught": "SFT methods"}
WHEN: Final = {"all": "after every task", "first": "after the first task"}
LEVELS: Final = {"matched": "at single levels of learning", "orders": "in single orders"}


def measured(asked: dict[str, Any]) -> str:
    """The number that decides a claim: ``FM, rft-grpo minus sft, at matched learning``."""
    kind, key = asked["kind"], asked.get("key")
    methods = [_named(str(asked[name])) for name in ("first", "second", "method") if name in asked]
    if kind == "level":
        return f"{key} of {methods[0]}"
    if kind == "ratio":
        return f"{key} of {methods[0]}, divided by {key} of {methods[1]}"
    if kind == "share":
        return f"the share of {' and '.join(asked['parts'])} in {asked['whole']}, {methods[0]}"
    if kind in ("law", "law_gap"):
        wanted = [_predictor(asked[name]) for name in ("x", "first", "second") if name in asked]
        by = ", minus that by ".join(wanted)
        where = f"{AMONG[asked['methods']]}, {WHEN[asked.get('stages', 'all')]}"
        return f"R² of {LOST[asked['y']]} predicted by {by}; {where}"
    where = {"matched": ", at matched learning", "orders": ", mean over the orders"}.get(kind, "")
    return f"{key}, {methods[0]} minus {methods[1]}{where}"


def reason(claim: Claim) -> str:
    """Why its verdict is what it is: where the interval lies, in words."""
    figures = claim.figures
    if "value" not in figures:
        return claim.because
    low, high = figures["interval"]
    if claim.verdict == "undecided":
        rules = f"{claim.supports} {claim.refutes}"
        thresholds = sorted({float(x) for x in re.findall(r"(?:low|high) *[<>]=? *(\S+)", rules)})
        inside = [f"{x:g}" for x in thresholds if low <= x <= high]
        if inside:
            return f"the interval contains {' and '.join(inside)}{_levels(claim)}"
        return f"the interval is on one side, the single values are not{_levels(claim)}"
    rule = claim.supports if claim.verdict == "supported" else claim.refutes
    return f"the interval is wholly {_place(rule, low, high)}{_levels(claim)}"


def _named(method: str) -> str:
    name, _, rate = method.partition("@")
    return f"{name} at learning rate {rate}" if rate else name


def _predictor(x: str) -> str:
    return PREDICTORS.get(x, x)


def _place(rule: str, low: float, high: float) -> str:
    """Where a rule that holds has the interval: above 0, below -2, between -2 and 2."""
    bounds = re.findall(r"(low|high) *[<>]=? *(\S+)", rule)
    above = [x for end, x in bounds if end == "low" and low >= float(x)]
    below = [x for end, x in bounds if end == "high" and high <= float(x)]
    if above and below:
        return f"between {above[0]} and {below[0]}"
    return f"above {above[0]}" if above else f"below {below[0]}" if below else f"where {rule}"


def _levels(claim: Claim) -> str:
    """The values that the number is a mean of, if it is one of several."""
    ends = [claim.figures.get(end) for end in ("least", "most")]
    if None in ends:
        return ""
    return f" ({ends[0]:.1f} to {ends[1]:.1f} {LEVELS.get(claim.evidence['kind'], 'at most')})"
