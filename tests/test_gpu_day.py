"""benchmarks.gpu at a tiny size on a CPU, its order and limits, its wheels, and its figures in the documentation."""

from __future__ import annotations

import importlib
import json
import zipfile
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import figures, wheels
from benchmarks.gpu.parts import (
    MINUTES,
    PARTS,
    SESSION,
    Part,
    limit_of,
    minutes_for,
    no_longer_read,
    refusal,
)
from benchmarks.gpu.scale import CPU, GPU, Place
from benchmarks.gpu.wheels import Wheel
from cpt_bench.advice.constants import MEASURED, constants
from cpt_bench.advice.estimate import ASSUMED
from cpt_bench.cli.plan import sources
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
    for name in ("sft float32", "rft bfloat16"):
        run = found["nano"]["runs"][name]
        assert "failed" not in run, run
        assert len(run["accuracy"]) == 3 and run["steps"] == 2  # two stages of a step
    replies = found["nano"]["replies"]
    assert [*replies] == ["base", "sft float32"]  # bfloat16 is another arithmetic
    assert all(r["equal"] == r["asked"] == 6 for r in replies.values())
    check = found["nano"]["runs"]["rft bfloat16"]["self-check"]
    assert 0 <= check["self_check"] <= check["self_check_most"] < found["nano"]["tolerance"]


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
        # Pictures and words of the drawn sizes, besides the few tokens of the chat's form.
        assert planned["tokens a step"] < measured["tokens a step"]
        assert measured["tokens a step"] < 2 * planned["tokens a step"]
    rollouts = found["rft"]["rollouts"]
    assert rollouts["tokens"] == CPU.steps * 2 * CPU.written  # two rollouts of a prompt a step
    assert rollouts["tokens a second"] > 0
    assert found["rft"]["self-check"]["self_check"] < 1e-3  # float32


@pytest.mark.slow
def test_a_swap_changes_replies_to_those_of_a_fresh_engine(found: dict[str, Any]) -> None:
    swap = found["evaluation"]["swap"]
    assert swap["equal to a fresh engine's"] == swap["replies"] == CPU.asked // 2
    assert swap["changed by the swap"] > 0


@pytest.mark.slow
def test_layers_methods_and_profile(found: dict[str, Any]) -> None:
    assert found["full"]["layers"] < found["full"]["of"] == 2
    assert found["full"]["weights"] < found["model"]["weights"]
    for name in ("lwf", "rapo", "ewc", "ewc-penalty"):
        assert found[name]["steps"] == CPU.steps and found[name]["gib at most"] > 0
    ends = {name: found[name]["seconds of the stage's end"] for name in ("ewc", "ewc-penalty")}
    assert ends["ewc"] > 0 and ends["ewc-penalty"] is None  # its steps are all
    assert found["ewc-penalty"]["gib stored"] > 0
    assert found["ewc-penalty"]["log"][-1]["ewc_penalty"] > 0
    assert not any(row.get("ewc_penalty") for row in found["ewc"]["log"])
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


def test_what_does_not_fit_is_skipped_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--cpu", "--minutes", "0", "--out", str(tmp_path)]) == 0
    second = capsys.readouterr().out.splitlines()[-1].split()
    assert second[second.index("--only") + 1].split(",") == [part.name for part in PARTS]
    assert second[second.index("--out") + 1] == str(tmp_path) and "--cpu" in second
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
    assert limit_of(part, 500, patience=3) == 300


def test_files_stay_while_a_part_will_read_them() -> None:
    names = [part.name for part in PARTS]
    assert no_longer_read(names[:3], PARTS[3:]) == ["nano"]  # model and sft are read
    i = names.index("evaluation") + 1
    assert {"sft", "rft", "evaluation"} <= set(no_longer_read(names[:i], PARTS[i:]))
    assert "model" in no_longer_read(names, [])


SECOND = (
    "python3 -m benchmarks.gpu --only full,profile,lwf,rapo,ewc,ewc-penalty --minutes 5 --out found"
)


def test_the_parts_of_most_worth_fit_into_the_first_call_and_all_into_two() -> None:
    first = PARTS[: [part.name for part in PARTS].index("evaluation") + 1]
    assert {"nano", "sft", "rft", "evaluation"} <= {part.name for part in first}
    assert sum(part.limit for part in first) <= 60 * MINUTES
    second = command.select(",".join(part.name for part in PARTS if part not in first))
    minutes = minutes_for(second, MINUTES)
    assert minutes + MINUTES <= SESSION
    assert sum(part.least for part in second) <= 60 * minutes
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"--minutes {MINUTES:g} --out found" in text
    assert SECOND.removeprefix("python3") in text


def test_a_second_call_takes_what_the_first_leaves_over() -> None:
    assert minutes_for(PARTS[:1], 8) == 3  # 130 seconds
    assert minutes_for(PARTS, 8) == 5
    assert minutes_for(PARTS, 30) == 1


@pytest.mark.parametrize("count", [1, 70, 700])
def test_sizes_are_drawn_from_the_tasks_of_cpt7(count: int) -> None:
    drawn = GPU.sizes(count)
    assert drawn == GPU.sizes(count)
    assert {pixels for pixels, _ in drawn} <= set(GPU.pixels)
    assert all(20 <= words <= 180 for _, words in drawn)
    if count == 700:
        assert {pixels for pixels, _ in drawn} == set(GPU.pixels) and len(GPU.pixels) == 7
        assert sum(words for _, words in drawn) / count == pytest.approx(100, rel=0.05)


def test_cptbench_need_not_be_installed(tmp_path: Path) -> None:
    """Its version is asked for by a run: the folder to import from has it."""
    tree = command.package(tmp_path)
    (there,) = distributions(path=[str(tree)])
    assert there.metadata["Name"] == "cptbench" and there.version == version("cptbench")
    assert (tree / "cpt_bench" / "cli").is_dir() and (tree / "benchmarks" / "gpu").is_dir()


def test_a_dry_run_prints_parts_limits_and_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert command.main(["--dry-run"]) == 0
    *lines, how, second = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == [part.name for part in PARTS]
    assert all(f"{part.limit:.0f} s" in line for part, line in zip(PARTS, lines, strict=True))
    assert f"{PARTS[1].least:.0f} s are assumed" in how
    assert second.strip() == SECOND
    monkeypatch.setenv("PYTHONPATH", "site")  # where the wheels were put
    assert command.main(["--dry-run"]) == 0
    assert capsys.readouterr().out.endswith(f"  PYTHONPATH=site {SECOND}\n")
    assert command.main(["--dry-run", "--only", "ewc-penalty"]) == 0  # with what it needs
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [x.split()[0] for x in lines] == ["model", "ewc", "ewc-penalty"]
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
        (["numpy>=9"], {}, []),  # there, new; its version is not known
        (["numpy>=1,<9"], {}, ["numpy<9,>=1 (of cptbench)"]),  # perhaps too new
        (["numpy<=9"], {"numpy": Wheel("8.0", ())}, []),
        (["numpy==2.*"], {}, ["numpy==2.* (of cptbench)"]),
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


def made(folder: Path, name: str, version: str, needs: tuple[str, ...] = (), size: int = 0) -> None:
    """A wheel of ``size`` bytes and a few."""
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join([*lines, "", "Words."]))
        archive.writestr(f"{name}/data", b"0" * size)


def test_wheels_are_read_with_what_they_need(tmp_path: Path) -> None:
    made(tmp_path, "Some_Package", "1.2", ("torch>=2", 'rich; extra == "all"'))
    made(tmp_path, "other", "3")
    (tmp_path / "notes.txt").write_text("no wheel")
    needs = ("torch>=2", 'rich; extra == "all"')
    assert wheels.wheels_in(tmp_path) == {
        "some-package": Wheel("1.2", needs),
        "other": Wheel("3", ()),
    }
    files = tmp_path.glob("*.whl")
    assert wheels.size_of(tmp_path) == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    ("size", "needs", "outcome"),
    [
        (0, (), "1 wheels, 0.0 MiB; with the repository's files 1.0 of 2 MiB"),
        (2**20, (), "2.0 MiB are to travel, 2 may"),
        (0, ("absent-package",), "1 needs are not met, among them absent-package (of trl)"),
        (0, ("numpy<3",), "1 needs are not met, among them numpy<3 (of trl)"),
    ],
)
def test_the_folder_of_wheels_is_checked(
    size: int,
    needs: tuple[str, ...],
    outcome: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is downloaded: what is listed is there."""
    machine = tmp_path / "machine.yaml"
    machine.write_text(json.dumps({**MACHINE, "wheels": ["trl==1.16.0"], "most": 2}))
    monkeypatch.setattr(wheels, "MACHINE", machine)
    monkeypatch.setattr(wheels, "needed", lambda: ["trl>=1.16"])
    monkeypatch.setattr(wheels, "repository", lambda: 2**20)
    folder = tmp_path / "wheels"
    folder.mkdir()
    made(folder, "trl", "1.16.0", needs, size)
    made(folder, "left_over", "1")  # of an earlier list
    done = wheels.main([str(folder)])
    shown = capsys.readouterr()
    assert outcome in shown.out + shown.err
    assert done == (0 if outcome in shown.out else 1)
    assert [file.name for file in folder.iterdir()] == ["trl-1.16.0-py3-none-any.whl"]


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


def test_a_plan_reads_the_constants_that_were_found() -> None:
    assert read_json(MEASURED) == figures.constants(figures.results())


def test_constants_of_a_card_are_set_from_its_parts(tmp_path: Path) -> None:
    rft = {"use_training": 0.2, "decode / transformers": 100}
    found = {
        "rft": {"card": "NVIDIA H200", "plan": {"constants": rft}},
        "sft": {"card": "NVIDIA H200", "plan": {"constants": {"use_training": 0.4}}},
        "evaluation": {
            "card": "NVIDIA H100 80GB HBM3",
            "constants": {"start": 30.0, "use_prefill": 0.5, "decode / transformers": None},
        },
        "full": {"card": "NVIDIA H100 80GB HBM3"},
    }
    made = figures.constants(found)
    assert made["h200"]["constants"] == {"use_training": 0.4, "transformers": ASSUMED.decode / 100}
    assert made["h100-80"]["constants"] == {"start": 30.0, "use_prefill": 0.5}
    found["sft"]["card"] = "Another card"  # no plan knows it
    assert figures.constants(found)["h200"]["constants"]["use_training"] == 0.2
    (tmp_path / "measured.json").write_text(json.dumps(made))
    given = constants("h200", tmp_path / "measured.json")
    assert given.values.use_training == 0.4 and given.values.start == ASSUMED.start
    assert given.sources["use_training"] == "measured on NVIDIA H200"
    assert given.sources["start"] == "assumed"
    assert sources(given.sources, "H200 141 GB") == (
        "measured on NVIDIA H200: use_training, transformers"
    )
    other = constants("a100-80", tmp_path / "measured.json")
    assert other.values == ASSUMED
    assert sources(other.sources, "A100") == "none of this was measured on the A100"


def test_no_figure_comes_from_a_cpu(tmp_path: Path) -> None:
    facts = {"card": "CPU", "weights": 1, "weights counted by the plan": 1}
    (tmp_path / "model.json").write_text(json.dumps(facts))
    assert figures.results(tmp_path) == {}
    (tmp_path / "model.json").write_text(json.dumps({**facts, "card": "A card"}))
    found = figures.results(tmp_path)
    assert "| A card | 1 weights; the plan counts 1 |" in figures.performance(found)
    assert "`model` (A card)" in figures.status(found) and "`ewc`" in figures.status(found)
