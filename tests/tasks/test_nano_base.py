"""The shipped base is a worthy one: skilled enough to forget, unskilled enough to learn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from benchmarks.nano_base import unmet
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.suite import open_suite
from cpt_bench.tasks.nano.base import train
from cpt_bench.tasks.nano.base.schedule import Schedule


@pytest.mark.parametrize("name", ["nano", "nano@sister"])
def test_it_meets_what_stood_before_any_method_was_run(name: str) -> None:
    suite = open_suite(name)
    assert unmet(suite, TransformersEngine(suite.base_path())) == []


def test_an_untaught_model_does_not(tiny_model: Path) -> None:
    found = unmet(open_suite("nano"), TransformersEngine(tiny_model), n=8)
    assert any("tasks between 15 and 70 %" in line for line in found)
    assert any(line.startswith("exam: 0.0 %") for line in found)


def test_a_sister_is_asked_for_by_seed_and_share(monkeypatch: Any, tmp_path: Path) -> None:
    plans: list[dict[str, Any]] = []
    monkeypatch.setattr(train, "build", lambda out, plan, start, only: plans.append(plan))
    for more in ([], ["--seed", "2", "--direct", "0.6"]):
        monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path), *more])
        train.main()
    shipped, sister = plans
    assert (shipped["seed"], shipped["neutral_direct"]) == (1, 0.7)
    assert (sister["seed"], sister["neutral_direct"]) == (2, 0.6)
    assert sister["stages"] == shipped["stages"]


STAGE = {"lr": 1.0, "steps": 1000, "decay_from": 0.8}


def rates(stage: dict[str, Any], seen: Any = lambda step: False) -> list[float]:
    """The learning rate of each step of a stage; ``seen``: whether it has what it waits for."""
    schedule, out = Schedule(stage), []
    while schedule.goes_on(len(out), lambda: seen(len(out))):
        out.append(schedule.learning_rate(len(out)))
    return out


def test_a_stage_warms_up_stays_flat_and_decays() -> None:
    found = rates(STAGE)
    assert len(found) == 1000 and found[0] == 0.01 and found[99] == 1.0
    assert found[100:801] == [1.0] * 701
    assert found[900] == pytest.approx(0.5) and min(found[100:]) == 0.03
    assert rates({**STAGE, "decay_from": 1.0}) == [*found[:801], *[1.0] * 199]


def test_a_stage_that_waits_decays_when_it_has_seen_enough() -> None:
    waits = {**STAGE, "until": {"loss": 0.1}, "most": 2000}
    assert rates(waits, lambda step: True) == rates(STAGE)
    late = rates(waits, lambda step: step >= 1234)
    assert len(late) == 1300 + 200 and set(late[100:1301]) == {1.0} and late[-1] == 0.03
    for most in (2000, 1950):
        never = rates({**waits, "most": most})
        assert len(never) == most and never[-1] == 0.03
