"""benchmarks.gpu at a tiny size on a CPU, its order and limits, its wheels, and its figures in the documentation."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import figures, wheels
from benchmarks.gpu.parts import PARTS, Part, limit_of, refusal
from benchmarks.gpu.scale import CPU, Place
from benchmarks.gpu.wheels import Wheel
from cpt_bench.documents import read_mapping
from cpt_bench.files import read_json
from tests.support.places import ROOT


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each part finds, in this process: starting one takes seconds of imports."""
    scratch = tmp_path_factory.mktemp("gpu")
    made = {}
    for part in PARTS:
        own = scratch / part.name
        own.mkdir()
        module, function = part.target.split(":")
        work = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)
        made[part.name] = work(Place(CPU, scratch, own))
    json.dumps(made)
    return made


@pytest.mark.slow
def test_nano_runs_and_replies_as_on_a_cpu(found: dict[str, Any]) -> None:
    nano = found["nano"]
    assert not [run["failed"] for run in nano["runs"].values() if "failed" in run]
    run = nano["runs"]["sft, float32"]
    assert len(run["accuracy"]) == 3 and run["steps"] == 2  # two stages of a step
    assert nano["replies"]["equal"] == nano["replies"]["asked"] == 6


@pytest.mark.slow
def test_stages_are_measured_against_the_plan(found: dict[str, Any]) -> None:
    assert found["model"]["weights"] == found["model"]["weights counted by the plan"]
    for name in ("sft", "rft"):
        assert found[name]["steps"] == CPU.steps
        plan = found[name]["plan"]
        measured, planned = plan["measured"], plan["planned"]
        key = "seconds of training a step"
        # With the constant that is printed, the plan would say what was measured.
        right = (
            planned[key] * plan["assumed now"]["use_training"] / plan["constants"]["use_training"]
        )
        assert right == pytest.approx(measured[key])
    rollouts = found["rft"]["rollouts"]
    assert rollouts["tokens"] == CPU.steps * 2 * CPU.written  # two rollouts of a prompt a step
    assert rollouts["tokens a second"] > 0
    assert found["rft"]["self-check"]["self_check"] < 1e-3  # float32


@pytest.mark.slow
def test_a_swap_changes_replies_to_those_of_a_fresh_engine(found: dict[str, Any]) -> None:
    swap = found["evaluation"]["swap"]
    assert swap["equal to a fresh engine's"] == swap["replies"] == CPU.asked
    assert swap["changed by the swap"] > 0


@pytest.mark.slow
def test_layers_methods_and_profile(found: dict[str, Any]) -> None:
    assert found["full"]["layers"] < found["full"]["of"] == 2
    assert found["full"]["weights"] < found["model"]["weights"]
    for name in ("lwf", "rapo", "ewc"):
        assert found[name]["steps"] == CPU.steps and found[name]["gib at most"] > 0
    kinds = found["profile"]["seconds by kind"]
    assert kinds["matrix products"] > 0 and kinds["attention"] > 0
    assert sum(kinds.values()) <= 1.05 * found["profile"]["seconds of the step"]


@pytest.mark.slow
def test_the_documentation_can_show_every_part(found: dict[str, Any]) -> None:
    shown = figures.performance(
        {name: {"card": "A card", **facts} for name, facts in found.items()}
    )
    assert shown.count("| A card |") == len(PARTS)
    assert f"{found['model']['weights']:,} weights" in shown


@pytest.mark.slow
def test_the_command_writes_what_a_part_found(tmp_path: Path) -> None:
    arguments = ["--cpu", "--only", "model", "--minutes", "5", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    facts = read_json(tmp_path / "model.json")
    assert facts["card"] == "CPU" and facts["weights"] > 0
    parts = read_json(tmp_path / "summary.json")["parts"]
    assert {name: row["state"] for name, row in parts.items()} == {"model": "done"}


def test_what_does_not_fit_is_skipped_and_recorded(tmp_path: Path) -> None:
    assert command.main(["--cpu", "--minutes", "0", "--out", str(tmp_path)]) == 0
    parts = read_json(tmp_path / "summary.json")["parts"]
    assert [*parts] == [part.name for part in PARTS]
    assert {row["state"] for row in parts.values()} == {"skipped"}
    assert parts["sft"]["why"] == "needs model" and "60 needed" in parts["nano"]["why"]


def test_a_part_that_takes_too_long_is_ended_and_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [Part(name, "", "model:measure", 0, 0.05) for name in ("nano", "full")]
    monkeypatch.setattr(command, "PARTS", short)
    assert command.main(["--cpu", "--out", str(tmp_path)]) == 1
    parts = read_json(tmp_path / "summary.json")["parts"]
    assert [row["state"] for row in parts.values()] == ["failed", "failed"]
    assert "ended after" in read_json(tmp_path / "full.failed.json")["why"]


def test_a_part_needs_its_seconds_and_its_files() -> None:
    part = Part("b", "", "", least=40, limit=100, needs=("a",))
    assert refusal(part, 500, []) == "needs a"
    assert refusal(part, 39, ["a"]) == "39 s left, 40 needed"
    assert refusal(part, 40, ["a"]) is None
    assert (limit_of(part, 500), limit_of(part, 60)) == (100, 60)


def test_a_dry_run_prints_parts_limits_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == [part.name for part in PARTS]
    assert all(f"{part.limit:.0f} s" in line for part, line in zip(PARTS, lines, strict=True))
    assert command.main(["--dry-run", "--only", "ewc"]) == 0  # with what it needs
    assert [x.split()[0] for x in capsys.readouterr().out.splitlines()[2:]] == ["model", "ewc"]
    assert command.main(["--dry-run", "--only", "rtf"]) == 2
    assert "no part is called 'rtf'" in capsys.readouterr().err


def test_parts_are_in_an_order_in_which_all_have_what_they_need() -> None:
    names = [part.name for part in PARTS]
    for i, part in enumerate(PARTS):
        assert set(part.needs) <= set(names[:i])
        assert part.least <= part.limit


MACHINE = {"python": "3.12", "present": {"torch": "2.11.0", "numpy": None}, "wheels": []}


@pytest.mark.parametrize(
    ("needs", "wheel", "lacking"),
    [
        (["torch>=2.9"], {}, []),
        (["torch>=2.12"], {}, ["torch>=2.12 (of cptbench)"]),
        (["numpy>=9"], {}, []),  # there; its version is not known
        (["trl>=1.16"], {"trl": Wheel("1.16.0", ())}, []),
        (["trl>=1.16"], {"trl": Wheel("1.15.0", ())}, ["trl>=1.16 (of cptbench)"]),
        (["trl"], {"trl": Wheel("1.16.0", ("datasets>=4",))}, ["datasets>=4 (of trl)"]),
        (["trl"], {"trl": Wheel("1.16.0", ('rich; extra == "all"',))}, []),
        (["tomli; python_version < '3.11'"], {}, []),
        (["Pydantic_Core"], {"pydantic-core": Wheel("2.50.5", ())}, []),
    ],
)  # fmt: skip
def test_a_need_is_met_by_the_machine_or_a_wheel(
    needs: list[str], wheel: dict[str, Wheel], lacking: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "needed", lambda: needs)
    assert wheels.absent(MACHINE, wheel) == lacking


def test_what_cptbench_itself_needs_is_there_or_listed() -> None:
    """Without a network: what the wheels need in turn is looked at by ``make gpu-wheels``."""
    machine = read_mapping(wheels.MACHINE)
    pinned = dict(line.split("==") for line in machine["wheels"])
    assert not wheels.absent(machine, {name: Wheel(v, ()) for name, v in pinned.items()})
    assert wheels.repository() < machine["most"] * wheels.MIB


@pytest.mark.parametrize("page", figures.PAGES)
def test_the_documentation_has_the_figures_that_were_found(page: str) -> None:
    text = (ROOT / page).read_text()
    assert text.count(figures.BEGIN) == text.count(figures.END) == 1
    assert figures.between(text, figures.PAGES[page](figures.results())) == text


def test_no_figure_comes_from_a_cpu(tmp_path: Path) -> None:
    facts = {"card": "CPU", "weights": 1, "weights counted by the plan": 1}
    (tmp_path / "model.json").write_text(json.dumps(facts))
    assert figures.results(tmp_path) == {}
    (tmp_path / "model.json").write_text(json.dumps({**facts, "card": "A card"}))
    found = figures.results(tmp_path)
    assert "| A card | 1 weights; the plan counts 1 |" in figures.performance(found)
    assert "`model` (A card)" in figures.status(found) and "`ewc`" in figures.status(found)
