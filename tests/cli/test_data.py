"""``cptbench data``: what is there, what is missing, and what a run says of it first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("datasets")
from cpt_bench.errors import CptBenchError
from tests.support.commands import Cli

pytestmark = pytest.mark.usefixtures("cpt7_place")


@pytest.mark.slow
def test_commands_say_what_is_there_and_what_is_missing(
    cli: Cli, cpt7_tables: Path, cpt7_folder: Path, tmp_path: Path
) -> None:
    import os

    env = {**os.environ, "CPTBENCH_DATA": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1"}
    partial = tmp_path / "partial"
    for repo in ("lmms-lab/POPE", "hiyouga/geometry3k"):
        shutil.copytree(cpt7_tables / repo, partial / repo)
    tasks = ["--task", "pope", "--task", "geometry3k", "--task", "pathvqa"]
    done = cli("data", "prepare", "--suite", cpt7_folder, "--from", partial, *tasks, env=env)
    assert done.returncode == 2
    assert (
        "pathvqa/train" in done.stderr
        and f"no folder {partial}/flaviagiammarino/path-vqa" in done.stderr
    )
    assert "not prepared: pathvqa/train, pathvqa/test. What was prepared is saved" in done.stderr
    status = cli("data", "status", "--suite", cpt7_folder, *tasks, env=env)
    assert (
        status.returncode == 1
        and status.stdout.count("MISSING") == 2
        and "lmms-lab/POPE" in status.stdout
    )
    done = cli("data", "prepare", "--suite", cpt7_folder, "--from", cpt7_tables, *tasks, env=env)
    assert (
        done.returncode == 0
        and done.stdout.count(" there ") == 3
        and done.stdout.count(" made ") == 2
    )
    shown = cli("show", f"{cpt7_folder}@paper/gqa", "--samples", "1", env=env)
    assert "grader   mathruler" in shown.stdout and "gqa is not prepared" in shown.stderr


def test_a_run_says_first_what_is_not_prepared(cli: Cli, cpt7_folder: Path, tmp_path: Path) -> None:
    import os

    env = {**os.environ, "CPTBENCH_DATA": str(tmp_path / "data")}
    run = cli("run", "--trainer", "sft", "--suite", cpt7_folder, "--tier", "mini", env=env)
    assert run.returncode == 2 and "not prepared: scienceqa/train" in run.stderr
    assert f"cptbench data prepare --suite {cpt7_folder}@mini" in run.stderr
    assert not (tmp_path / "runs").exists()


def test_a_suite_that_makes_its_own_samples_has_nothing_to_prepare() -> None:
    from cpt_bench.cli.data import _wanted

    with pytest.raises(CptBenchError, match="there is nothing to prepare"):
        _wanted("nano", None, None, None)
