"""What can change a step's result is in its key; decided without a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpt_bench.run import keys
from cpt_bench.run.context import Policy
from cpt_bench.run.evaluate import halves
from cpt_bench.run.ledger import step_key
from cpt_bench.run.plan import Plan
from cpt_bench.stage.method import Method
from cpt_bench.suite import load_suite
from cpt_bench.trainer import Budget, Privileges
from cpt_bench.worker.devices import Devices

TINY = Path(__file__).parents[1] / "support/tiny"
SUITE = load_suite(TINY)
POLICIES = {0: Policy("base", "w0", "f0"), 1: Policy("one", "w1", "f1", ("state", "memory"))}


def plan(**changes: Any) -> Plan:
    method = Method("m", {"spec": "m"}, {"rate": 1.0}, Privileges())
    return Plan(
        suite_spec=str(TINY), suite=SUITE, method=method, seed=0, limit=None, threads=1,
        overlap=True, keep="all", base=Path("base"),
    )._replace(**changes)  # fmt: skip


def identity(of: Plan, **changes: Any) -> dict[str, Any]:
    return {**of.choices(), "versions": {"torch": "2"}, **changes}


def training(of: Plan, policies: dict[int, Policy] | None = None, **changes: Any) -> str:
    inputs = keys.training(
        of, identity(of, **changes), 2, POLICIES if policies is None else policies
    )
    return step_key("stage-2/train", inputs)


METHOD = plan().method
CHANGES: dict[str, Any] = {
    "the parent's weights": {"policies": {**POLICIES, 1: POLICIES[1]._replace(weights="x")}},
    "the parent's template": {"policies": {**POLICIES, 1: POLICIES[1]._replace(frame="x")}},
    "the trainer's state": {"policies": {**POLICIES, 1: POLICIES[1]._replace(carried=("x", "y"))}},
    "the seed": {"plan": plan(seed=1)},
    "the limit": {"plan": plan(limit=3)},
    "threads": {"plan": plan(threads=2)},
    "the settings": {"plan": plan(method=METHOD._replace(config={"rate": 2.0}))},
    "the trainer's code": {
        "plan": plan(method=METHOD._replace(origin={"spec": "m", "sha256": "x"}))
    },
    "a privilege": {
        "plan": plan(method=METHOD._replace(privileges=Privileges(replay_samples_per_task=1)))
    },
    "the budget": {"plan": plan(budget=Budget(samples=9))},
    "several processes": {"plan": plan(launch="torchrun --nproc_per_node 2")},
    "a package": {"versions": {"torch": "3"}},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_trains_again(what: str) -> None:
    change = dict(CHANGES[what])
    changed = training(change.pop("plan", plan()), change.pop("policies", None), **change)
    assert changed != training(plan())


@pytest.mark.parametrize("of", [plan(overlap=False), plan(keep="none"), plan(base=Path("moved"))])
def test_what_changes_no_result_changes_no_key(of: Plan) -> None:
    assert training(of) == training(plan())


def test_earlier_checkpoints_count_where_they_are_read() -> None:
    other = {**POLICIES, 0: POLICIES[0]._replace(weights="x")}
    assert training(plan(), other) == training(plan())
    reads = plan(method=METHOD._replace(privileges=Privileges(earlier_checkpoints=True)))
    assert training(reads, other) != training(reads)


def test_an_evaluation_is_one_of_these_weights() -> None:
    """Caches that are keyed without them return the last stage's answers for this one."""
    of = plan()
    asked = [keys.evaluation(of, identity(of), policy, "science") for policy in POLICIES.values()]
    assert [a["weights"] for a in asked] == ["w0", "w1"]
    assert asked[0]["card"]["name"] == "science" and len(asked[0]["code"]) == 64
    assert "origin" not in asked[0], "whoever trained it, the same weights give the same answers"


def test_evaluation_is_done_in_halves_where_nothing_trains() -> None:
    names = ["a", "b", "c"]
    assert halves(plan(), True, names) == [names]
    assert halves(plan(), False, names) == [["a", "c"], ["b"]]
    assert halves(plan(overlap=False), False, names) == [names]
    gpu = plan(devices=Devices(("0",), ("1",)))
    assert halves(gpu, False, names) == [names], "two halves would be two engines on one GPU"
    assert halves(plan(), False, ["a"]) == [["a"]]
