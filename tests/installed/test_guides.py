"""The guides do what they print: their commands are typed into a shell, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from tests.support.pages import BLOCK, shell
from tests.support.places import ROOT, TINY

pytestmark = pytest.mark.slow

# ------------------------------------------------------------------------------- the first steps


class Reader:
    """Somebody who types what a page shows into a shell, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tools = folder / "tools"
        tools.mkdir()
        (tools / "cptbench").write_text(f'#!/bin/sh\nexec {sys.executable} -m cpt_bench "$@"\n')
        (tools / "cptbench").chmod(0o755)
        (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (tools / "python").chmod(0o755)
        path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.variables = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}

    def types(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env=self.variables,
            capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {script}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    pytest.importorskip("torch")
    return Reader(tmp_path_factory.mktemp("reader"))


def runnable(page: str) -> list[str]:
    """A page's commands, without installing, and without what needs hours, a server or a browser."""
    skipped = ("pip ", "python3 -m venv", "for ", "done", "--endpoint", "--stages", "score replies",
               "--out runs/halfway")  # fmt: skip
    return [c for c in shell(ROOT / "docs" / page) if c and not any(s in c for s in skipped)]


@pytest.mark.long
def test_getting_started_ends_with_a_row_of_one_s_own(reader: Reader) -> None:
    blocks = BLOCK.findall((ROOT / "docs/start.md").read_text())
    (code,) = [text for _, title, text in blocks if title == "mine.py"]
    (reader.folder / "mine.py").write_text(code)
    shown = {command: reader.types(command) for command in runnable("start.md")}
    assert next(iter(shown)) == "cptbench doctor" and len(shown) == 6
    matrix = shown["cptbench run --trainer sft --budget 64 --limit 8"]
    assert re.search(r"^after +scien +text", matrix, re.M) and "FM" in matrix
    rows = shown["cptbench compare runs"]
    assert re.search(r"^Halfway +1 \(0\)", rows, re.M) and re.search(r"^sft +1", rows, re.M), rows
    assert (reader.folder / "report.html").stat().st_size > 1e5
    halfway(reader.folder / "runs")


def halfway(runs: Path) -> None:
    """What the page's method calls an average is one."""
    from safetensors.numpy import load_file

    from cpt_bench.tasks.nano import FOLDER

    (mine,) = [p for p in runs.iterdir() if "halfway" in p.name]
    (plain,) = [p for p in runs.iterdir() if "nano-sft" in p.name]
    at = "stages/1-science/checkpoint/model.safetensors"
    base = load_file(FOLDER / "checkpoint/model.safetensors")
    half, full = load_file(mine / at), load_file(plain / at)
    for name in half:
        np.testing.assert_allclose(half[name], (base[name] + full[name]) / 2, atol=1e-4)


@pytest.mark.parametrize("page", ["howto/compare.md", "howto/evaluate.md"])
def test_a_guide_s_commands_run(page: str, reader: Reader) -> None:
    reader.types("\n".join(runnable(page)))


def test_the_guide_to_a_suite_runs(reader: Reader) -> None:
    if not (reader.folder / "examples").exists():
        (reader.folder / "examples").symlink_to(ROOT / "examples")
    out = reader.types("\n".join(runnable("howto/suite.md")))
    assert "2 alphabet" in out
    assert re.search(r"^[0-9a-f]{64}$", out, re.M)
    assert out.strip().splitlines()[-1] in (ROOT / "examples/suite/sums.yaml").read_text()


# ---------------------------------------------------------------------- a method of one's own


@pytest.fixture(scope="module")
def home(reader: Reader) -> tuple[Path, dict[str, str]]:
    """An environment on top of this one, in which the reader installs plug-ins: (folder, variables).

    The runs of the first steps are in the folder already: the same command only reads them.
    """
    folder = reader.folder
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    site = next((folder / "env/lib").glob("python*/site-packages"))
    # A .pth that adds this environment's packages, its own .pth files included.
    (site / "base.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n"
    )
    scripts = folder / "env/bin"
    (scripts / "cptbench").write_text(
        f"#!{scripts}/python\nfrom cpt_bench.cli.main import entry\nif __name__ == '__main__':\n    entry()\n"
    )
    (scripts / "cptbench").chmod(0o755)
    variables = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    if "PYTHONPATH" not in variables:
        variables["PYTHONPATH"] = ""
    return folder, variables


def sh(command: str, home: tuple[Path, dict[str, str]], ok: bool = True) -> str:
    folder, variables = home
    if command.startswith("pip install"):
        command = command.replace("pip install", "pip install --quiet --no-deps")
    done = subprocess.run(
        command, shell=True, cwd=folder, env=variables, capture_output=True, text=True, timeout=900
    )
    assert (done.returncode == 0) == ok, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.long
def test_the_guide_to_a_trainer_works_command_by_command(home: tuple[Path, dict[str, str]]) -> None:
    guide = (ROOT / "docs/trainer.md").read_text()
    block = re.search(r"```sh\n(cptbench trainer new.*?)```", guide, re.S)
    assert block is not None
    said = {}
    for line in block[1].strip().splitlines():
        command = line.split("  #")[0].strip()
        said[command] = sh(command, home)
    listed = said["cptbench list trainers"]
    assert re.search(r"my-method/my-method .*\[my-method 0\.1\.0\]", listed)
    table = said[next(c for c in said if c.startswith("cptbench compare"))]
    assert "my-method" in table and "sft" in table


@pytest.mark.long
def test_the_guide_to_a_suite_of_one_s_own_works_as_it_stands(
    home: tuple[Path, dict[str, str]],
) -> None:
    """docs/suite.md, from data to a verified entry, in one shell as its reader has it."""
    pytest.importorskip("sklearn")
    pytest.importorskip("easy_vqa")
    guide = (ROOT / "docs/suite.md").read_text()
    script = re.search(r"```python title=\"make_data.py\"\n(.*?)```", guide, re.S)
    block = re.search(r"```sh\n(python make_data.py.*?)```", guide, re.S)
    assert script is not None and block is not None
    home = home[0] / "lab", home[1]  # its runs are of a suite that other guides' readers lack
    home[0].mkdir()
    (home[0] / "make_data.py").write_text(script[1])
    lines = block[1].replace("pip install", "pip install --quiet --no-deps")
    done = sh(f"set -e\n{lines}", home)
    assert re.search(r"my-lab/my-lab +digits, then flowers, then shapes +\[my-lab 1\.0\]", done)
    assert "which digit is this?" in done
    assert "FAIL" not in done and re.search(r"verified: .*sft", done)
    matrix = json.loads((home[0] / "runs/sft/matrix.json").read_text())
    assert matrix["tasks"] == ["digits", "flowers", "shapes"]
    assert [len(row) for row in matrix["accuracy"]] == [3, 3, 3, 3]
    cards = [(home[0] / f"my-lab/src/my_lab/{t}.yaml").read_text() for t in matrix["tasks"]]
    assert all("null" not in card for card in cards)
    (shown,) = re.findall(r"^(splits:\n  train: .*?\nanswer_kinds: .*?)$", guide, re.S | re.M)
    for line in shown.splitlines():  # the card that the page explains is the one that is made
        plain = re.escape(line).replace("null", "[0-9a-f]{64}")
        assert re.search(f"^{plain}( #.*)?$", cards[2], re.M), (line, cards[2])


def test_an_installed_package_is_found_and_a_broken_one_spoils_nothing(
    home: tuple[Path, dict[str, str]], tiny_model: Path
) -> None:
    folder, _ = home
    shutil.copytree(ROOT / "examples/plugin", folder / "plugin")
    sh("pip install ./plugin", home)
    sh("cptbench trainer new broken-one", home)
    (folder / "broken-one/src/broken_one/__init__.py").write_text("1 / 0\n")
    sh("pip install ./broken-one", home)
    listed = sh("cptbench list trainers", home)
    assert "cptbench-example/replay" in listed and "[cptbench-example 0.1.0]" in listed
    assert "broken-one/broken-one" in listed
    assert "ZeroDivisionError" in sh("cptbench list trainers --check", home)
    failed = sh("cptbench run --trainer broken-one/broken-one", home, ok=False)
    assert "broken-one/broken-one: importing 'broken_one' failed (ZeroDivisionError" in failed
    assert "Did you mean 'cptbench-example/replay'" in sh(
        "cptbench run --trainer cptbench-example/replai", home, ok=False
    )
    sh(f"cptbench run --trainer cptbench-example/replay --suite {TINY} --base {tiny_model} "
       "--set learning_rate=1e-3 --set max_steps=2 --set kept=3 --set device=cpu --out run", home)  # fmt: skip
    run = json.loads((folder / "run/run.json").read_text())
    assert (
        run["origin"]["distribution"] == "cptbench-example" and run["origin"]["version"] == "0.1.0"
    )
    assert run["privileges"]["replay_samples_per_task"] == 3
    kept = {
        f.stem: len(f.read_text().splitlines())
        for f in (folder / "run/stages/3-counting/memory").glob("*.jsonl")
    }
    assert kept == {"science": 3, "lowvision": 3, "counting": 3}
