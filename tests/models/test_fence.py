"""The quick path of models is chosen in one place, and everything runs without it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.places import ROOT

FOLDERS = {"cpt_bench": ROOT / "cpt_bench", "cpt_bench.tasks": ROOT / "tasks",
           "cpt_bench.trainers": ROOT / "trainers"}  # fmt: skip
PACKAGES, SEAM = (
    ("cpt_bench.models.qwen_cpu", "cpt_bench.models.text_cpu"),
    "cpt_bench.models.quick",
)


def modules() -> dict[str, Path]:
    """All modules of the package, by name."""
    found = {}
    for name, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((name, *parts)).removesuffix(".__init__")] = file
    return found


MODULES = modules()


def imports(file: Path) -> Iterator[str]:
    """The modules of the package that a file imports anywhere, in functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inside]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def test_the_seam_alone_imports_the_quick_path() -> None:
    importers = {name for name, file in MODULES.items() if any(map(within, imports(file)))}
    assert {name for name in importers if not within(name)} == {SEAM}


def within(module: str) -> bool:
    """Whether a module is of the quick path."""
    return any(module == name or module.startswith(f"{name}.") for name in PACKAGES)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has no quick path."""
    home = tmp_path_factory.mktemp("without")
    ignore = shutil.ignore_patterns("__pycache__", "qwen_cpu", "text_cpu.py")
    for name, folder in FOLDERS.items():
        shutil.copytree(folder, home.joinpath(*name.split(".")), ignore=ignore)
    found = (
        "import cpt_bench, importlib.util as i; print(cpt_bench.__file__, *map(i.find_spec, %r))"
    )
    done = subprocess.run(
        [sys.executable, "-c", found % (PACKAGES,)], capture_output=True, text=True, check=True,
        cwd=home, env={**os.environ, "PYTHONPATH": str(home)},
    )  # fmt: skip
    assert done.stdout.split() == [str(home / "cpt_bench/__init__.py"), "None", "None"]
    return home


@pytest.fixture(scope="module")
def one_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano's suite with its first task alone."""
    folder = tmp_path_factory.mktemp("suite")
    nano = ROOT / "tasks/nano"
    suite = yaml.safe_load((nano / "suite.yaml").read_text(encoding="utf-8"))
    suite |= {"name": "one", "sequence": ["science"], "general": []}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    shutil.copy(nano / "science.yaml", folder)
    return folder


def run(package: Path, suite: Path, folder: Path, trainer: str, *settings: str) -> dict[str, Any]:
    """A short run with the package that lies in ``package``: accuracies and the training log."""
    sets = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "cpt_bench", "run", "--trainer", trainer, "--suite", str(suite),
               "--base", str(ROOT / "tasks/nano/checkpoint"), "--limit", "12", "--no-share",
               "--out", str(folder), "--set", "learning_rate=1e-3", "--set", "device=cpu", *sets]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder.parent, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(package)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = next(folder.glob("stages/1-*/train.jsonl")).read_text().splitlines()
    matrix = json.loads((folder / "matrix.json").read_text())
    return {"log": [json.loads(line) for line in log], "matrix": matrix}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "settings"),
    [
        ("sft", ["max_steps=2", "batch_size=4"]),
        ("rft", ["max_steps=2", "prompts_per_step=2", "rollouts=4"]),
    ],
)
def test_a_stage_and_an_evaluation_run_without_the_quick_path(
    trainer: str, settings: list[str], without: Path, one_task: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    found = run(without, one_task, tmp_path / "without", trainer, *settings)
    assert [row["step"] for row in found["log"]] == [1, 2]
    if trainer == "sft":  # rollouts are drawn, and rounding may draw others
        quick = run(ROOT, one_task, tmp_path / "with", trainer, *settings)
        assert found["matrix"] == quick["matrix"]
        for ours, theirs in zip(quick["log"], found["log"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
