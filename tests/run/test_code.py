"""Keys hold the code that a step runs: an edit of it does the step again, any other edit does not."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.files import read_json
from cpt_bench.run.code import code_digest, imports_of, module_file, reach
from tests.support.places import ROOT, TINY

DIGESTS = """
import json
from cpt_bench.run.code import code_digest
print(json.dumps({
    "evaluate": code_digest(["cpt_bench.run.jobs.evaluate", "cpt_bench.engines.hf:TransformersEngine"]),
    "kl": code_digest(["cpt_bench.run.jobs.divergence"]),
    "sft": code_digest(["cpt_bench.stage.training", "cpt_bench.trainers.sft:SFT"]),
    "copy": code_digest(["cpt_bench.stage.training", "./copy.py:Copy"]),
}))
"""

COPY = """
import shutil
from cpt_bench.trainer import Trainer

class Copy(Trainer):
    def train(self, stage):
        shutil.copytree(stage.policy, stage.output, dirs_exist_ok=True)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, laid out as a wheel installs it, and a trainer of somebody's own.

    Whoever edits it undoes that.
    """
    folder = tmp_path_factory.mktemp("copy")
    skip = shutil.ignore_patterns("__pycache__")
    package = folder / "site/cpt_bench"
    shutil.copytree(ROOT / "cpt_bench", package, ignore=skip)
    for name in ("tasks", "trainers"):
        shutil.copytree(ROOT / name, package / name, ignore=skip)
    (folder / "copy.py").write_text(COPY)
    return package


@pytest.fixture(scope="module")
def unedited(copy: Path) -> dict[str, str]:
    """The digests of the copy as it is shipped."""
    found: dict[str, str] = json.loads(python(copy, "-c", DIGESTS))
    return found


def python(copy: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy.parents[1],
        env={**os.environ, "PYTHONPATH": str(copy.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@contextmanager
def edited(file: Path, line: str) -> Iterator[None]:
    whole = file.read_text()
    file.write_text(f"{whole}\n{line}\n")
    try:
        yield
    finally:
        file.write_text(whole)


EDITS: dict[str, tuple[str, str, set[str]]] = {
    "the decoder": ("models/qwen_cpu/decoding.py", "EDITED = 1", {"evaluate", "kl", "sft"}),
    "a grader": ("grading/vqa.py", "EDITED = 1", {"evaluate", "kl", "sft", "copy"}),
    "a helper that runs in its own process": (
        "grading/symbolic_helper.py", "EDITED = 1", {"evaluate", "kl", "sft", "copy"}),
    "KL": ("evaluation/divergence.py", "EDITED = 1", {"kl"}),
    "a trainer's helper": ("trainers/answers.py", "EDITED = 1", {"sft"}),
    "a trainer that is not used": ("trainers/flow.py", "EDITED = 1", set()),
    "the report": ("report/grids.py", "EDITED = 1", set()),
    "the command line": ("cli/run.py", "EDITED = 1", set()),
    "the sequence": ("run/sequencer.py", "EDITED = 1", set()),
    "a comment in the decoder": ("models/qwen_cpu/decoding.py", "# EDITED", set()),
    "a text that stands alone": ("models/qwen_cpu/decoding.py", '"""EDITED"""', set()),
}  # fmt: skip
"""What is edited: the file, the line, and which steps it concerns."""


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_changes_the_keys_of_what_runs_it(
    what: str, copy: Path, unedited: dict[str, str]
) -> None:
    file, line, concerned = EDITS[what]
    with edited(copy / file, line):
        found = json.loads(python(copy, "-c", DIGESTS))
    assert {name for name in found if found[name] != unedited[name]} == concerned


@pytest.mark.slow
def test_what_is_done_again_after_an_edit(copy: Path, tiny_model: Path) -> None:
    """A run after an edit of the report, then of the decoder: training needs neither here."""
    arguments = ("-m", "cpt_bench", "run", "--trainer", "./copy.py:Copy", "--suite", str(TINY))
    options = ("--limit", "4", "--base", str(tiny_model), "--out", "run", "--no-share", "--json")
    folder = copy.parents[1] / "run"

    def steps() -> dict[str, int]:
        """Step to the time at which its record was written."""
        return {f.stem: f.stat().st_mtime_ns for f in (folder / "ledger").glob("*.json")}

    python(copy, *arguments, *options)
    first, matrix = steps(), read_json(folder / "matrix.json")
    with edited(copy / "report/grids.py", "EDITED = 1"):
        python(copy, *arguments, *options)
        assert steps() == first
        with edited(copy / "models/qwen_cpu/decoding.py", "EDITED = 1"):
            python(copy, *arguments, *options)
    again = {name for name, at in steps().items() if at != first[name]}
    assert again == {name for name in first if ".train" not in name}
    assert read_json(folder / "matrix.json") == matrix


class Round:
    """Rubbish that the collector finds, and that lets another thread run when it is collected."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Round()
        time.sleep(0)


def test_threads_that_ask_at_once_get_their_digests() -> None:
    """Evaluation beside training; two threads that parse at once make CPython raise a SystemError."""
    targets = [
        f"cpt_bench.{name}" for name in ("run.jobs.evaluate", "run.ledger", "stage.training")
    ]
    alone = [code_digest([target]) for target in targets]
    before = gc.get_threshold()
    try:
        gc.set_threshold(50)
        Round()
        for _ in range(3):
            for cached in ("_tree", "_meaning", "imports_of"):
                getattr(sys.modules["cpt_bench.run.code"], cached).cache_clear()
            with ThreadPoolExecutor(len(targets)) as pool:
                assert list(pool.map(lambda target: code_digest([target]), targets)) == alone
    finally:
        gc.set_threshold(*before)
        Round.__del__ = lambda self: None  # type: ignore[method-assign]


# ------------------------------------------------------------------------------- the import graph


def test_what_a_module_imports() -> None:
    file = module_file("cpt_bench.run.ledger")
    assert file is not None
    assert {"cpt_bench.errors", "cpt_bench.files"} <= imports_of(file)


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("import cpt_bench.files", "files.py"),
        ("from cpt_bench import errors", "errors.py"),
        ("from cpt_bench.suite.cards import Sample", "suite/__init__.py"),
        ("def f():\n    from cpt_bench.run import ledger", "run/ledger.py"),
        ("X = 'cpt_bench.grading.symbolic_helper'", "grading/symbolic_helper.py"),
        ("import cpt_bench.trainers.sft", "trainers/sft.py"),
    ],
)
def test_what_is_reached(source: str, reached: str, tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(source)
    found = {file.as_posix() for file in reach([tmp_path / "it.py"])}
    assert any(file.endswith(f"/{reached}") for file in found)
    assert not any("/cli/" in file or "/report/" in file for file in found)


def test_a_target_that_is_a_package_is_all_of_it(tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "somebodys"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "method.py").write_text("class M: ...\n")
    (package / "helper.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    first = code_digest(["somebodys.method:M"])
    change: Callable[[str], int] = (package / "helper.py").write_text
    change("A = 2\n")
    for cached in ("_tree", "_meaning", "imports_of"):
        getattr(sys.modules["cpt_bench.run.code"], cached).cache_clear()
    assert code_digest(["somebodys.method:M"]) != first
