"""Writes a study's page from points and claims with verdicts; computes every number in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np

from cpt_bench.metrics import t_interval
from cpt_bench.study import pareto
from cpt_bench.study.claims import Claim, Verdict
from cpt_bench.study.evidence import SEEDS, Evidence, by_seed, difference, law, matched
from cpt_bench.study.figures import LAWS, order_name
from cpt_bench.study.opening import Study
from cpt_bench.study.points import Points
from cpt_bench.study.power import need
from cpt_bench.study.words import AMONG, WHEN, measured, reason

HERE = Path(__file__).parent
COLUMNS = ("LearnGain", "AvgAcc", "FM", "BWT", "GeneralDelta", "Lost", "KL_new")


def page(study: Study, figures: dict[str, str]) -> str:
    """The page's Markdown.

    Args:
        study: Its runs, and its claims with their verdicts.
        figures: Name to file, as :func:`~cpt_bench.study.figures.draw` returns them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["p"] = _p
    points, claims = study.points, study.claims
    changed = [c for c in claims if c.before is not None and c.before.verdict != c.verdict]
    text = environment.get_template("page.md.j2").render(
        folder=study.folder.name,
        suite=points.suite.name,
        about=points.about,
        beside=study.beside,
        done=len(points.used),
        planned=study.planned,
        counts=counted([claim.verdict for claim in claims]),
        remaining=counted([claim.corrected for claim in claims]),
        earlier=earlier(claims),
        changed=len(changed),
        gist=gist(points),
        power=power_table(claims, study.evidence),
        unmeasured=sum("value" not in claim.figures for claim in claims),
        measured=sum("value" in claim.figures for claim in claims),
        claims=[_shown(claim) for claim in claims],
        others={name: others_table(claims, name, there) for name, there in study.others.items()},
        held=held(claims),
        elsewhere=study.runs - len(points.used),
        figures=figures,
        table=methods_table(points),
        rates=rates_table(points),
        matched=matched_table(points),
        law_table=law_table(points),
        kinds_table=kinds_table(points),
        ablations=ablations(points),
        without={
            "kl": sum(not _has(p.numbers, "KL_new") for p in points.used),
            "kinds": sum(not _has(p.numbers, "Lost_content") for p in points.used),
        },
        orders=[(order_name(points, o), o) for o in points.orders()],
        left_out=sorted(points.left_out.items()),
    )
    lines = [line.rstrip() for line in text.splitlines()]
    shown = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    return "\n".join(shown).strip() + "\n"


def _shown(claim: Claim) -> dict[str, object]:
    """A claim with what the page says of it."""
    words = {"holds_on": claim.holds_on, "measured": measured(claim.evidence)}
    return {**claim.model_dump(), **words, "reason": reason(claim), "number": number(claim)}


def number(claim: Claim) -> str:
    """Its number with the 95 % interval; empty if it was not measured."""
    return quoted(claim.because) if "value" in claim.figures else ""


def quoted(because: str) -> str:
    """The number with its interval that a verdict's reason begins with."""
    return because.partition(":")[0]


def _p(value: float | None) -> str:
    return "·" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _has(numbers: dict[str, float | None], key: str) -> bool:
    return numbers.get(key) is not None


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How often each verdict is among ``verdicts``."""
    return {name: list(verdicts).count(name) for name in get_args(Verdict)}


def gist(points: Points) -> str:
    """What a reader may quote: each family's plain method, each number with its interval."""
    found = []
    for method in [name for rewarded in (False, True) for name in points.family(rewarded)[:1]]:
        runs = points.of(method)
        values = {k: [p.numbers.get(k) for p in runs] for k in ("AvgAcc", "FM", "GeneralDelta")}
        if len(runs) >= SEEDS:
            avg, fm, general = (_mean(values[key], key) for key in values)
            found.append(
                f"{method} ends with {avg} % accuracy over all tasks; its forgetting (FM) is {fm} "
                f"points, its change of general capability {general} points ({len(runs)} seeds)."
            )
    return " ".join(found)


def earlier(claims: Sequence[Claim]) -> dict[str, int]:
    """How many claims an earlier edition found supported, refuted and undecided; empty if none."""
    before = [claim.before.verdict for claim in claims if claim.before is not None]
    return counted(before) if before else {}


def held(claims: Sequence[Claim]) -> dict[str, int]:
    """How verdicts, each taken alone, fare on other base models.

    Returns:
        ``asked``: claims that other base models have the runs for; ``decided``: those among them
        that the suite's own base model decides; ``same`` and ``opposite``: those among these that
        have the same verdict from every other base model, or the opposite one from some.
    """
    asked = [claim for claim in claims if claim.bases]
    decided = [claim for claim in asked if claim.verdict != "undecided"]
    pairs = [
        (claim.verdict, {other.verdict for other in claim.bases.values()}) for claim in decided
    ]
    return {
        "asked": len(asked),
        "decided": len(decided),
        "same": sum(there == {here} for here, there in pairs),
        "opposite": sum(bool(there - {here, "undecided"}) for here, there in pairs),
    }


def others_table(claims: Sequence[Claim], name: str, there: Points) -> dict[str, str]:
    """What runs from another base model say: of the claims, and of each method."""
    rows = [
        [
            claim.claim,
            measured(claim.evidence),
            f"{number(claim)}: {claim.verdict}",
            f"{quoted(claim.bases[name].because)}: {claim.bases[name].verdict}",
        ]
        for claim in claims
        if name in claim.bases
    ]
    own = there.suite.name
    return {
        "runs": str(len(there.used)),
        "claims": _grid(["claim", "what was measured", f"from {own}'s own", f"from {name}"], rows),
        "methods": methods_table(there),
        "rates": rates_table(there),
    }


def power_table(claims: Sequence[Claim], evidence: Sequence[Evidence]) -> str:
    """How many repetitions each measured claim has, and how many would decide it."""
    rows = []
    for claim, found in zip(claims, evidence, strict=True):
        if found.value is None or claim.verdict != "undecided":
            continue
        asked = need(claim, found)
        total = "·" if asked.need is None else f"{asked.need:,}"
        runs = "·" if asked.more is None else f"{round(asked.more * found.runs / asked.have):,}"
        rows.append([claim.id, claim.claim, number(claim),
                     f"{asked.have} {asked.of}", total, runs, asked.why])  # fmt: skip
    if not rows:
        if all(found.value is None for found in evidence):
            return "No claim was measured yet."
        return "Every claim that was measured is decided."
    header = ["id", "claim", "measured", "has", "needs", "runs to add", "why none would do"]
    return _grid(header, rows)


def methods_table(points: Points) -> str:
    """Each method at its recipe's learning rate."""
    rows = []
    for method in points.methods():
        found = points.of(method)
        if found:
            cells = [_mean([p.numbers.get(key) for p in found], key) for key in COLUMNS]
            rows.append([method, f"{found[0].rate:g}", str(len(found)), *cells])
    return _grid(["method", "learning rate", "seeds", *COLUMNS], rows)


def rates_table(points: Points) -> str:
    """The methods that were run at several learning rates, in the suite's order."""
    own = [p for p in points.used if p.order == points.suite.sequence]
    rows = []
    for method in points.methods():
        rates = sorted({p.rate for p in own if p.method == method})
        for rate in rates if len(rates) > 1 else ():
            found = points.of(method, rate)
            cells = [
                _mean([p.numbers.get(key) for p in found], key)
                for key in ("LearnGain", "AvgAcc", "FM", "GeneralDelta")
            ]
            rows.append([method, f"{rate:g}", str(len(found)), *cells])
    if not rows:
        return "No method was run at another rate yet."
    header = ["method", "learning rate", "seeds", "LearnGain", "AvgAcc", "FM", "GeneralDelta"]
    return _grid(header, rows)


def _mean(values: Sequence[float | None], key: str) -> str:
    known = [v for v in values if v is not None]
    if len(known) < len(values) or not known:
        return "·"
    digits = 3 if key.startswith("KL") else 1
    over = t_interval(known, "seeds")
    half = "" if over is None else f" ± {(over.high - over.low) / 2:.{digits}f}"
    return f"{np.mean(known):.{digits}f}{half}"


def matched_table(points: Points) -> str:
    """All pairs of methods that have curves: each family's baseline against every other method."""
    own = [p for p in points.used if p.order == points.suite.sequence]
    have = [
        method
        for method in points.methods()
        if not pareto.missing(method, pareto.settings([p for p in own if p.method == method], "FM"))
    ]
    plain = [method for rewarded in (False, True) for method in points.family(rewarded)[:1]]
    pairs = [(a, b) for b, a in combinations(have, 2) if b in plain]
    rows = []
    for first, second in pairs:
        forgets = matched(points, "FM", first, second)
        general = matched(points, "GeneralDelta", first, second)
        level = forgets.details.get("learned_by_both")
        learned = "·" if level is None else f"{level:.1f}"
        rows.append([f"{first} − {second}", learned, _spread(forgets), _spread(general)])
    if not rows:
        return (
            f"Not measured yet: a curve takes {pareto.RATES} learning rates with two seeds each, "
            f"and {len(have)} of the methods here have that."
        )
    return _grid(["methods", "learned by both", "FM", "GeneralDelta"], rows)


def _found(evidence: Evidence, digits: int = 1) -> str:
    if evidence.value is None or evidence.interval is None:
        return "·"
    low, high = evidence.interval.low, evidence.interval.high
    return f"{evidence.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _spread(evidence: Evidence) -> str:
    """The same, with the range of the values that the number is a mean of."""
    ends = [evidence.details.get(end) for end in ("least", "most")]
    spread = "" if None in ends else f" ({ends[0]:.1f} to {ends[1]:.1f})"
    return _found(evidence) + spread


def law_table(points: Points) -> str:
    """R² of each law, for general capability and for earlier tasks."""
    rows: list[list[str]] = []
    for x, who, stages, label in LAWS:
        when = WHEN[stages].removeprefix("after ")
        general = law(points, x, "general", who, stages)
        tasks = _found(law(points, x, "tasks", who, stages), 2) if stages == "all" else "·"
        shown = _found(general, 2) if general.value is not None else general.missing
        rows.append([label, AMONG[who].partition(" ")[0], when, str(general.runs), shown, tasks])
    header = [
        "predictor",
        "methods",
        "after",
        "runs",
        "R² of general capability",
        "R² of earlier tasks",
    ]
    return _grid(header, rows)


def kinds_table(points: Points) -> str:
    """Each method's losses by kind, on tasks and on general benchmarks."""
    kinds = ("format", "mode", "content")
    keys = ["Lost", *(f"Lost_{k}" for k in kinds), *(f"General_{k}" for k in ("lost", *kinds))]
    rows = []
    for method in points.methods():
        found = [by_seed(points.of(method), key) for key in keys]
        seeds = set(found[0]).intersection(*found[1:])
        if seeds:
            means = [f"{np.mean([values[s] for s in seeds]):.1f}" for values in found]
            rows.append([method, str(len(seeds)), *means])
    header = [
        "method",
        "seeds",
        *(f"{of}: {k}" for of in ("tasks", "general") for k in ("lost", *kinds)),
    ]
    return _grid(header, rows)


def ablations(points: Points) -> str:
    """The effect of each single change."""
    rows = []
    for pair in points.about.ablations:
        found = [
            difference(points, k, pair.first, pair.second) for k in ("AvgAcc", "FM", "GeneralDelta")
        ]
        cells = [_found(f) for f in found]
        if found[0].value is None:
            cells = [f"not yet: {found[0].missing.replace(' with AvgAcc', '')}", "·", "·"]
        rows.append([f"{pair.first} − {pair.second}", pair.what, *cells])
    return _grid(["methods", "the difference", "AvgAcc", "FM", "GeneralDelta"], rows)
