"""The command line as a person meets it: quick, light, and one clear line when something is off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import LIGHT, Cli
from tests.support.places import ROOT

STUDY = ROOT / "docs/study/results"


@pytest.mark.parametrize(
    "args",
    [
        ["--help"], ["--version"], ["run", "--help"], ["list", "trainers"], ["list", "suites"],
        ["list", "tasks"], ["list", "graders"], ["compare", "--help"], ["report", "--help"], ["show", "nano"], ["show", "cpt7@paper"], ["show", "cpt7@mini/gqa"],
        ["grade", "--help"], ["sweep", "--help"], ["study", "--help"], ["data", "--help"], ["show", "nano/science"],
    ],
)  # fmt: skip
def test_looking_around_needs_no_torch(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_lists_as_json(cli: Cli) -> None:
    names = [row["name"] for row in json.loads(cli("list", "trainers", "--json").stdout)]
    assert names[:2] == ["sft", "rft"]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["run", "--trainer", "rtf"], "no trainer is called 'rtf'. Did you mean 'rft'?"),
        (["run", "--trainer", "pkg/mine"], "no trainer is called 'pkg/mine'"),
        (["run", "--trainer", "./none.py:Mine"], "./none.py: no such file"),
        pytest.param(["run", "--trainer", "json:dumps"], "json:dumps is not a Trainer", marks=pytest.mark.slow),
        pytest.param(["run", "--trainer", "json:Trainer"], "json has no 'Trainer'", marks=pytest.mark.slow),
        pytest.param(["run", "--trainer", "nowhere:Trainer"], "cannot import 'nowhere'", marks=pytest.mark.slow),
        (["run", "--trainer", "sft", "--suite", "nanu"], "no suite is called 'nanu'. Did you mean 'nano'?"),
        pytest.param(
            ["run", "--trainer", "sft", "--set", "learning_rat=1"], "Did you mean 'learning_rate'?", marks=pytest.mark.slow
        ),
        pytest.param(["run", "--trainer", "sft", "--set", "learning_rate=fast"], "learning_rate: ", marks=pytest.mark.slow),
        pytest.param(["run", "--trainer", "sft", "--set", "learning_rate"], "is not key=value", marks=pytest.mark.slow),
        (["run", "--trainer", "sft", "--order", "text,science"], "is not a permutation of"),
        (["show", "nano/sciense"], "has no task 'sciense'. Did you mean 'science'?"),
        (["metrics", "none.json"], "none.json: no such file"),
        (["score", "."], "holds no run.json"),
        (["metrics", "."], "Is a directory (.)"),
        (["score", "/dev/null"], "/dev/null"),
        (["grade", ".", "--grader", "exact"], "Is a directory (.)"),
        (["report", str(STUDY)], "Stored runs are read by `cptbench verify`"),
        (["compare", str(STUDY)], "neither a run folder nor a folder of runs"),
        (["plan", "--trainer", "rft", "--set", "foo=1"], "no setting is called 'foo'"),
        (["verify", str(STUDY.parent / "figures")], "no entry and no stored run here"),
        (["plan", "--trainer", "rft", "--keep", "some"], "no such value: 'some'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_an_exit_code(args: list[str], line: str, cli: Cli) -> None:
    done = cli(*args)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" in cli("--debug", "show", "nanu").stderr


def test_metrics_of_any_matrix(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(
        '{"accuracy": [[80], [70, 90], [60, 85, 75], [50, 60, 70, 88]]}'
    )
    values = json.loads(cli("metrics", "m.json", "--json").stdout)["metrics"]
    assert values["BWT"]["value"] == pytest.approx(-65 / 3)
    (tmp_path / "m.json").write_text('{"accuracy": [[1, 2], [3, 4], [null, 6]]}')
    done = json.loads(cli("metrics", "m.json", "--json").stdout)
    assert done["missing"] == ["R[2][1]: task1 after stage 2 (task2)"]
    assert done["metrics"]["AvgAcc"]["value"] is None
    assert "R[2][1]: task1 after stage 2 (task2)" in cli("metrics", "m.json").stdout
    (tmp_path / "m.json").write_text("{broken")
    assert "m.json: not valid JSON" in cli("metrics", "m.json").stderr


@pytest.mark.slow
def test_a_trainer_file_that_raises_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("1 / 0\n")
    done = cli("run", "--trainer", "./mine.py:Mine")
    assert done.returncode == 2
    assert done.stderr.strip() == "cptbench: ./mine.py: ZeroDivisionError: division by zero"


COMMAND = ["run", "--trainer", "cmd:sh x"]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([*COMMAND, "--stage-timeout", 0], "--stage-timeout: 0.0 is not a limit"),
        ([*COMMAND, "--stage-timeout", "inf"], "--stage-timeout: inf is not a limit"),
        ([*COMMAND, "--memory-limit", 0], "--memory-limit: 0.0 is not a limit"),
        (["run", "--trainer", "sft", "--launch", 'torchrun "x'], "is not a command line"),
        ([*COMMAND, "--engine-set", "batch_size=[1"], "'[1' is not a value"),
        ([*COMMAND, "--privilege", "joint=[1"], "'[1' is not a value"),
        ([*COMMAND, "--set", "x=[1"], "'[1' is not a value"),
        ([*COMMAND, "--set", "x=nan"], "'nan' is not a finite number"),
        ([*COMMAND, "--out", "file"], "file: is not a directory"),
        ([*COMMAND, "--out", "file/x"], "file/x: is not a directory"),
        (["eval", "--stages", ""], "0 checkpoints match"),
        (["eval", "--stages", "/"], "0 checkpoints match"),
        (["export", "prompts", "--out", "file"], "file: is not an empty folder"),
        (["sweep", "."], ".: no such file"),
        (["sweep", "plain.yaml", "--out", "file"], "file: is not a directory"),
        (["sweep", "zero.yaml"], "stage_timeout: Input should be greater than 0"),
        (["sweep", "rate.yaml"], "runs.0.learning_rates.0: Input should be a finite number"),
        (["sweep", "set.yaml"], "Input should be a finite number"),
    ],
)  # fmt: skip
def test_bad_values_and_places_are_one_line(
    args: list[str], line: str, cli: Cli, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "file").touch()
    runs = {
        "plain": "{trainers: [cmd:sh x]}",
        "zero": "{trainers: [sft]}]\nstage_timeout: 0\n#",
        "rate": "{trainers: [sft], learning_rates: [.inf]}",
        "set": "{trainers: [sft], set: {x: [.nan]}}",
    }
    for name, text in runs.items():
        (tmp_path / f"{name}.yaml").write_text(f"runs: [{text}]\n")
    done = cli(*args)
    assert done.returncode == 2 and line in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_files_that_a_kill_cut_short_or_never_wrote(tmp_path: Path) -> None:
    from cpt_bench.engines.endpoint import Journal
    from cpt_bench.sweep.backends import ended

    row = json.dumps({"weights": "w", "key": "k", "reply": "é", "tokens": 1}, ensure_ascii=False)
    (tmp_path / "journal").write_bytes(f"\n{row}\n{row}".encode().partition(b"\xa9")[0])
    assert "k" not in Journal(tmp_path / "journal", "w")
    (tmp_path / "journal").write_bytes(f"\n{row}\n".encode() + row.encode().partition(b"\xa9")[0])
    assert "k" in Journal(tmp_path / "journal", "w")
    assert ended("x", 1, str(tmp_path / "none.log")).why == "exited with 1"
