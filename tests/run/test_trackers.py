"""Trackers: TensorBoard for real, the hosted ones by what they are asked."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.run.trackers import Reporter, known

EVENTS = [
    {"kind": "cell", "stage": 0, "name": "science", "accuracy": 30.0, "n": 10},
    {"kind": "train", "stage": 1, "task": "science", "step": 0, "steps": 0},
    {"kind": "train", "stage": 1, "task": "science", "step": 1, "steps": 2, "reward": 0.25},
    {"kind": "train", "stage": 1, "task": "science", "step": 2, "steps": 2, "reward": 0.5},
    {
        "kind": "train",
        "stage": 2,
        "task": "text",
        "step": 1,
        "steps": 2,
        "reward": 0.75,
        "ok": True,
    },
    {"kind": "cell", "stage": 1, "name": "science", "accuracy": 60.0, "n": 10},
    {"kind": "cell", "stage": 2, "name": "science", "accuracy": 50.0, "n": 10},
    {"kind": "output", "stage": 2, "line": "words"},
]
METRICS = {"AvgAcc": {"value": 41.5}, "FM": {"value": None}}


def feed(reporter: Reporter) -> None:
    for event in EVENTS:
        reporter(event)
    reporter.finish(METRICS)


def test_tensorboard_for_real(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    feed(Reporter(["tensorboard"], tmp_path / "run", {}))
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    series = {
        tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }
    assert series["train/reward"] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert series["accuracy/science"] == [(0, 30.0), (2, 60.0), (4, 50.0)]
    assert series["metric/AvgAcc"] == [(4, 41.5)] and "metric/FM" not in series


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_hosted_trackers_are_asked_as_they_document(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any, Any]] = []
    fake = types.ModuleType(name)
    for method in ("init", "log", "finish"):
        setattr(fake, method, lambda *a, method=method, **k: calls.append((method, a, k)))
    monkeypatch.setitem(sys.modules, name, fake)
    feed(Reporter([name], tmp_path / "nano-rft-seed0", {"seed": 0}))
    assert calls[0] == (
        "init",
        (),
        {"project": "cptbench", "name": "nano-rft-seed0", "config": {"seed": 0}},
    )
    assert calls[1] == ("log", ({"accuracy/science": 30.0},), {"step": 0})
    assert ("log", ({"train/reward": 0.5, "train/stage": 1.0},), {"step": 2}) in calls
    assert calls[-2] == ("log", ({"metric/AvgAcc": 41.5},), {"step": 4})
    assert calls[-1] == ("finish", (), {})


def test_a_tracker_that_fails_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, said = types.ModuleType("wandb"), []
    fake.init = lambda **k: None  # type: ignore[attr-defined]

    def log(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route\nto host")

    fake.log = log  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    feed(Reporter(["wandb"], tmp_path, {}, said.append))
    assert said == ["cptbench: tracker wandb failed and is left out (no route to host)"]


def test_names_are_checked_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert known([]) == [] and known(["wandb", "trackio", "wandb"]) == ["wandb", "trackio"]
    with pytest.raises(CptBenchError, match=r"no tracker is called 'wnadb'\. Did you mean 'wandb'"):
        known(["wnadb"])
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(CptBenchError, match="pip install trackio"):
        Reporter(["trackio"], tmp_path, {})


@pytest.mark.slow
def test_a_run_feeds_tensorboard(tiny_model: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tests.support.commands import sft_args

    done = cli(*sft_args(tiny_model, "--out", tmp_path / "run", "--report-to", "tensorboard"))
    assert done.returncode == 0, done.stderr
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    assert [e.step for e in found.Scalars("train/loss")] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]  # three stages of two
    assert [e.step for e in found.Scalars("accuracy/science")] == [0, 2, 4, 6]
    assert found.Scalars("metric/AvgAcc")
