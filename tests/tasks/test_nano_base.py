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


def test_it_meets_what_stood_before_any_method_was_run() -> None:
    suite = open_suite("nano")
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
