"""``cptbench trainer check``: a trainer proved on a stream of two small stages, in a minute.

The stream is nano's first two tasks cut to a few samples, from nano's base model: a real
Qwen2.5-VL, so that what passes here runs the whole suite.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import TrainerFault
from cpt_bench.models.checkpoint import load_model, load_processor
from cpt_bench.results.folder import RunFolder
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.plan import Plan
from cpt_bench.run.sequencer import Sequencer

SAMPLES, BUDGET, SECONDS = 24, 48, 120.0
"""Training samples of a task, prompts that a stage may draw, seconds that it may take."""


class Finding(NamedTuple):
    """One thing that was tried.

    Attributes:
        what: What a trainer must do.
        ok: Whether it does; None where it cannot be told.
        detail: What was seen.
    """

    what: str
    ok: bool | None
    detail: str


def small(plan: Plan) -> Plan:
    """``plan`` on a stream of two short stages."""
    suite = plan.suite.model_copy(update={"sequence": plan.suite.sequence[:2], "general": ()})
    budget = plan.budget.model_copy(update={"samples": BUDGET, "seconds": SECONDS})
    return plan._replace(suite=suite, limit=SAMPLES, budget=budget)


def check(plan: Plan, folder: Path, tell: Callable[[dict[str, Any]], None]) -> list[Finding]:
    """Try the plan's trainer on a small stream.

    Args:
        plan: Its trainer, settings and privileges; the rest is cut down.
        folder: An empty folder to work in.
        tell: Receives progress events.

    Returns:
        What was tried, in order; a fault ends it, because nothing after it would mean anything.
    """
    plan = small(plan)
    findings: list[Finding] = []
    try:
        findings += _first(plan, folder, tell)
        findings += _again(plan, folder, tell)
    except TrainerFault as fault:
        findings.append(Finding(RULES.get(fault.kind, "trains a stage"), False, str(fault)))
        return findings
    findings.append(Finding("leaves its inputs alone", True, "policy and train split unchanged"))
    findings.append(
        Finding(RULES["privilege"], True, f"declares {_declared(plan)}; nothing else was touched")
    )
    return findings


RULES = {
    "privilege": "stays within its privileges",
    "inputs-edited": "leaves its inputs alone",
    "no-checkpoint": "writes a loadable checkpoint",
    "pickle": "writes a loadable checkpoint",
    "broken": "writes a loadable checkpoint",
    "not-finite": "writes a loadable checkpoint",
    "timeout": f"ends a stage of {SAMPLES} samples within {SECONDS:.0f} s",
}
"""Fault to the rule it breaks."""


def _declared(plan: Plan) -> str:
    given = plan.privileges.model_dump(exclude_defaults=True)
    return ", ".join(f"{k}={v}" for k, v in given.items()) or "no privileges"


def _sequencer(
    plan: Plan, identity: dict[str, Any], folder: Path, tell: Callable[[dict[str, Any]], None]
) -> Sequencer:
    paths = RunFolder(folder, plan.suite.sequence)
    ledger = Ledger(folder)
    return Sequencer(plan, identity, paths, ledger, tell, data=folder.parent / "data")


def _first(plan: Plan, folder: Path, tell: Callable[[dict[str, Any]], None]) -> list[Finding]:
    """Both stages, once."""
    sequence = _sequencer(plan, plan.identity(), folder / "first", tell)
    stages = plan.stages()[1:]
    for t in stages:
        sequence.train(t)
    records = [sequence.ledger.record(f"stage-{t}/train") for t in stages]
    last = sequence.paths.checkpoint(stages[-1])
    load_model(last, device="cpu", attention="eager")
    load_processor(last)
    weights = [sequence.weights[t] for t in (0, *stages)]
    changed = len(set(weights)) == len(weights)
    drawn = max(record["facts"]["samples"] for record in records)
    seconds = max(record["facts"]["wall_seconds"] for record in records)
    return [
        Finding("writes a loadable checkpoint", True, f"{seconds:.1f} s a stage at most"),
        Finding(
            "changes the weights",
            changed,
            "after every stage" if changed else "a stage left them as they were",
        ),
        Finding(
            "honours its budget",
            drawn <= BUDGET if drawn else None,
            f"{drawn} of {BUDGET} prompts drawn"
            if drawn
            else "it logs no 'samples'; only the time limit was seen to hold",
        ),
    ]


class _EnoughError(Exception):
    """Ends a stage in its middle."""


def _again(plan: Plan, folder: Path, tell: Callable[[dict[str, Any]], None]) -> list[Finding]:
    """The same once more, killed on the way; then another seed."""
    identity, stages = plan.identity(), plan.stages()[1:]
    first = _sequencer(plan, identity, folder / "first", tell)
    for t in stages:
        first.train(t)  # committed: read from the ledger
    second = _sequencer(plan, identity, folder / "second", tell)
    second.train(stages[0])
    same = second.weights[stages[0]] == first.weights[stages[0]]
    findings = [
        Finding(
            "honours its seed",
            same,
            "the same seed gives the same weights" if same else "the same seed gave other weights",
        )
    ]

    def interrupt(event: dict[str, Any]) -> None:
        if event["kind"] == "train" and event["step"] >= 1:
            raise _EnoughError

    if len(stages) > 1 and same:
        try:
            killed = _sequencer(plan, identity, folder / "second", interrupt)
            for t in stages:
                killed.train(t)
            how = "in a new process"
        except _EnoughError:
            how = "after being killed in the middle of stage 2"
        resumed = _sequencer(plan, identity, folder / "second", tell)
        for t in stages:
            resumed.train(t)
        exact = resumed.weights[stages[-1]] == first.weights[stages[-1]]
        findings.append(
            Finding("resumes", exact, f"{'the same' if exact else 'other'} weights, {how}")
        )
    other = plan._replace(seed=plan.seed + 1)
    third = _sequencer(other, other.identity(), folder / "third", tell)
    third.train(stages[0])
    differs = third.weights[stages[0]] != first.weights[stages[0]]
    findings.append(
        Finding(
            "uses its seed",
            True if differs else None,
            "another seed gives other weights" if differs else "another seed changes nothing",
        )
    )
    return findings
