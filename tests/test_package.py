"""What is installed: one top-level name, with the data that makes nano run."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import LIGHT
from tests.support.places import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_has_one_top_level_name_and_all_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cpt_bench"}
    for needed in (
        "tasks/cpt7/suite.yaml",
        "tasks/cpt7/adapters.py",
        "tasks/cpt7/superclevr.yaml",
        "tasks/cpt7/base_config.json",
        "tasks/plugins.yaml",
        "trainers/plugins.yaml",
        "engines/plugins.yaml",
        "tasks/nano/suite.yaml",
        "tasks/nano/science.yaml",
        "tasks/nano/assets/tiles.png",
        "tasks/nano/checkpoint/model.safetensors",
        "tasks/nano/base/stages.yaml",
        "trainers/rft.py",
        "report/report.html.j2",
        "report/page.css",
        "report/page.js",
        "report/plotly-cartesian.min.js",
        "report/plotly-LICENSE.txt",
        "trainers/recipes/nano/rft.yaml",
        "tasks/nano/base_row.json",
        "leaderboard/site/templates/entry.html",
        "leaderboard/site/assets/board.js",
        "py.typed",
    ):
        assert f"cpt_bench/{needed}" in names
    assert wheel.stat().st_size < 25e6


@pytest.mark.slow
def test_the_wheel_alone_looks_around_and_makes_samples(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    for args in (
        ["list", "trainers"],
        ["show", "nano/text", "--samples", "2"],
        ["plan", "--gpus", "1"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", LIGHT.replace("import sys", f"import sys; sys.path.insert(0, {str(tmp_path)!r})", 1), *args],
            capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_the_repository_has_the_rooms_it_should() -> None:
    for name in ("cpt_bench", "tasks", "trainers", "leaderboards", "tests", "CONTRIBUTING.md"):
        assert (ROOT / name).exists()


def test_nano_s_base_models_are_what_is_recorded() -> None:
    """Small enough to ship, and the safetensors the suite's numbers were made with."""
    from cpt_bench.files import digest
    from cpt_bench.tasks.nano import FOLDER

    recorded = [line.split() for line in (FOLDER / "weights.sha256").read_text().splitlines()]
    assert [name for _, name in recorded] == [
        "checkpoint/model.safetensors", "sister/model.safetensors",
    ]  # fmt: skip
    for sha256, name in recorded:
        assert (FOLDER / name).stat().st_size < 25e6
        assert digest(FOLDER / name) == sha256
