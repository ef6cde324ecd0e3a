"""A suite of one's own: a package with grader, trainer and cards, questions in files outside it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from tests.support.commands import here
from tests.support.own_suites import pin, write_package


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the folder that holds the package, the questions' folder)."""
    folder = tmp_path_factory.mktemp("own")
    bank = folder / "bank"
    write_package(folder / "src", bank)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "src"))
        pin(folder / "src/pairs_suite")
    return folder / "src", bank


@pytest.fixture
def own(made: tuple[Path, Path], monkeypatch: Any) -> tuple[Path, Path]:
    monkeypatch.syspath_prepend(str(made[0]))
    return made


def run(src: Path, model: Path, trainer: str, out: Path) -> subprocess.CompletedProcess[str]:
    """From the folder of the package, with a relative path."""
    spec = f"pairs_suite.trainers:{trainer}"
    return here(src, "run", "--suite", "pairs_suite", "--base", model, "--trainer", spec, "--out", out)  # fmt: skip


@pytest.fixture(scope="module")
def first(made: tuple[Path, Path], tiny_model: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(made[0]))
        done = run(made[0], tiny_model, "Copy", made[0].parent / "runs/first")
    assert done.returncode == 0, done.stderr
    return made[0].parent / "runs/first"


def test_a_package_with_everything_in_it_runs_and_is_scored_from_elsewhere(
    own: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    """Its grader and its trainer are beside hidden cards; its form has no thought."""
    src, bank = own
    rows = json.loads((first / "matrix.json").read_text())["accuracy"]
    assert [len(row) for row in rows] == [2, 2, 2] and all(None not in row for row in rows)
    record = json.loads((first / "run.json").read_text())
    assert record["suite"]["spec"] == str(src / "pairs_suite")
    for command in (("score", first), ("report", first)):
        again = here(tmp_path, *command)
        assert again.returncode == 0, again.stderr
    lists = [json.loads(file.read_text()) for file in first.parent.rglob("*-reads-*.json")]
    assert sorted(file for found in lists for file in found) == sorted(map(str, bank.iterdir()))


def test_a_trainer_that_opens_what_a_generator_reads_is_refused(
    own: tuple[Path, Path], tiny_model: Path, first: Path
) -> None:
    src, bank = own
    done = run(src, tiny_model, "Peek", first.parent / "peek")
    assert done.returncode == 2
    assert f"opened what it has no privilege for: {bank}/doubles-test.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_edited_card_is_named_as_what_changed(
    own: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    card = own[0] / "pairs_suite/sums.yaml"
    before = card.read_text()
    card.write_text(before.replace("title: sums", "title: Sums"))
    try:
        done = here(tmp_path, "compare", first, first)
    finally:
        card.write_text(before)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "was run with another version of suite pairs" in done.stderr
    assert "Install cptbench" not in done.stderr
    assert "What its cards and suite.yaml declare has changed since" in done.stderr


def test_a_run_outlives_the_folder_of_its_suite(
    own: tuple[Path, Path], first: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    out = Path(shutil.copytree(first, tmp_path / "copy"))
    record = json.loads((out / "run.json").read_text())
    record["suite"]["spec"] = "/gone/pairs_suite"
    (out / "run.json").write_text(json.dumps(record))
    done = here(tmp_path, "score", out)
    assert "suite pairs is neither in /gone/pairs_suite any more nor installed" in done.stderr
    monkeypatch.setenv("CPTBENCH_PLUGINS", str(own[0]))
    done = here(tmp_path, "score", out)
    assert done.returncode == 0, done.stderr
