"""``cptbench trainer check``: tests a trainer on two small stages, in a minute.

The stages are a suite's first two tasks, cut to a few samples. By default they are nano's, from
nano's base model: a real Qwen2.5-VL, so that a trainer that passes can run the whole suite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import TrainerFault
from cpt_bench.models.checkpoint import load_model, load_processor
from cpt_bench.run.context import Policy
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.plan import Plan
from cpt_bench.run.sequencer import opened, train_stages

SAMPLES, BUDGET, SECONDS = 24, 48, 120.0
"""Training samples per task, prompts that a stage may draw, and its default time limit."""


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        what: What a trainer must do.
        ok: Whether it does; None if it cannot be determined.
        detail: What was observed.
    """

    what: str
    ok: bool | None
    detail: str


def small(plan: Plan) -> Plan:
    """``plan``, cut down to two short stages."""
    suite = plan.suite.model_copy(update={"sequence": plan.suite.sequence[:2], "general": ()})
    seconds = plan.budget.seconds or SECONDS
    budget = plan.budget.model_copy(update={"samples": BUDGET, "seconds": seconds})
    return plan._replace(suite=suite, limit=SAMPLES, budget=budget)


def check(plan: Plan, folder: Path, tell: Callable[[dict[str, Any]], None]) -> list[Check]:
    """Check the plan's trainer on two small stages.

    Args:
        plan: Its trainer, settings, privileges and time limit are used; the rest is cut down.
        folder: An empty folder to work in.
        tell: Receives progress events.

    Returns:
        The checks, in order; a fault ends them, because later results would mean nothing.
    """
    plan = small(plan)
    checks: list[Check] = []
    try:
        checks += _first(plan, folder, tell)
        checks += _again(plan, folder, tell)
    except TrainerFault as fault:
        rule = RULES.get(fault.kind, "trains a stage").format(plan.budget.seconds)
        checks.append(Check(rule, False, str(fault)))
        return checks
    checks.append(Check("leaves its inputs alone", True, "policy and train split unchanged"))
    checks.append(
        Check(RULES["privilege"], True, f"declares {_declared(plan)}; nothing else was touched")
    )
    return checks


RULES = {
    "privilege": "stays within its privileges",
    "inputs-edited": "leaves its inputs alone",
    "no-checkpoint": "writes a loadable checkpoint",
    "pickle": "writes a loadable checkpoint",
    "broken": "writes a loadable checkpoint",
    "not-finite": "writes a loadable checkpoint",
    "timeout": f"ends a stage of {SAMPLES} samples within {{:.0f}} s",
}
"""Each kind of fault, and the rule that it breaks."""


def _declared(plan: Plan) -> str:
    given = plan.privileges.model_dump(exclude_defaults=True)
    return ", ".join(f"{k}={v}" for k, v in given.items()) or "no privileges"


def _train(
    plan: Plan, folder: Path, tell: Callable[[dict[str, Any]], None], stages: Sequence[int]
) -> tuple[dict[int, Policy], Ledger]:
    """Train ``stages`` of ``plan`` in ``folder``, or find them done there."""
    with opened(plan, folder, tell=tell, data=folder.parent / "data") as context:
        return train_stages(context, stages), context.ledger


def _first(plan: Plan, folder: Path, tell: Callable[[dict[str, Any]], None]) -> list[Check]:
    """Both stages, once."""
    stages = plan.stages()[1:]
    policies, ledger = _train(plan, folder / "first", tell, stages)
    records = [ledger.record(f"stage-{t}/train") for t in stages]
    last = Path(policies[stages[-1]].folder)
    load_model(last, device="cpu", attention="eager")
    load_processor(last)
    weights = {policy.weights for policy in policies.values()}
    changed = len(weights) == len(policies)
    drawn = max(record["facts"]["samples"] for record in records)
    seconds = max(record["facts"]["wall_seconds"] for record in records)
    return [
        Check("writes a loadable checkpoint", True, f"{seconds:.1f} s a stage at most"),
        Check(
            "changes the weights",
            changed,
            "after every stage" if changed else "a stage left them as they were",
        ),
        Check(
            "honours its budget",
            drawn <= BUDGET if drawn else None,
            f"{drawn} of {BUDGET} prompts drawn"
            if drawn
            else "it logs no 'samples'; only the time limit could be checked",
        ),
    ]


class _EnoughError(Exception):
    """Raised to end a stage in the middle."""


def _again(plan: Plan, folder: Path, tell: Callable[[dict[str, Any]], None]) -> list[Check]:
    """Both stages again, with stage 2 interrupted; then with another seed."""
    stages = plan.stages()[1:]
    first, _ = _train(plan, folder / "first", tell, stages)  # committed: read from the ledger
    second, _ = _train(plan, folder / "second", tell, stages[:1])
    same = second[stages[0]].weights == first[stages[0]].weights
    checks = [
        Check(
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
            _train(plan, folder / "second", interrupt, stages)
            how = "in a new process"
        except _EnoughError:
            how = "after being killed in the middle of stage 2"
        resumed, _ = _train(plan, folder / "second", tell, stages)
        exact = resumed[stages[-1]].weights == first[stages[-1]].weights
        checks.append(Check("resumes", exact, f"{'the same' if exact else 'other'} weights, {how}"))
    other = plan._replace(seed=plan.seed + 1)
    third, _ = _train(other, folder / "third", tell, stages[:1])
    differs = third[stages[0]].weights != first[stages[0]].weights
    checks.append(
        Check(
            "uses its seed",
            True if differs else None,
            "another seed gives other weights" if differs else "another seed changes nothing",
        )
    )
    return checks
