"""What is published installs into an empty environment and runs there: the sdist and the wheel.

They are built from the files that git tracks, so that a file nobody committed cannot be missed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import BytesParser
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.places import ROOT

ENTRY = next((ROOT / "leaderboards/nano/1.0/closed").glob("*__sft__*"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIMITS = {"wheel": 18e6, "sdist": 18e6}  # bytes; nano's two base models are 13.4 MB of them

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("git"), reason="git is not installed"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is not a git checkout"),
]


class Distribution(NamedTuple):
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("build", reason="build is not installed: pip install -e '.[dev]'")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith(("docs/", "leaderboards/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return Distribution(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))


def test_the_checkers_have_nothing_to_say(built: Distribution) -> None:
    for tool, more in (("twine", ["check", "--strict"]), ("check_wheel_contents", [])):
        pytest.importorskip(tool, reason=f"{tool} is not installed: pip install -e '.[dev]'")
        files = built if tool == "twine" else (built.wheel,)
        done = subprocess.run(
            [sys.executable, "-m", tool, *more, *map(str, files)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_sdist_holds_the_package_and_no_half_of_the_tests(built: Distribution) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "trainers/sft.py"):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests", "docs", "leaderboards"))]


def test_the_wheel_is_small(built: Distribution) -> None:
    """A wheel that grows is somebody's forgotten file: the ten largest are printed."""
    with zipfile.ZipFile(built.wheel) as wheel:
        largest = sorted(wheel.infolist(), key=lambda file: -file.compress_size)[:10]
    table = "\n".join(f"{f.compress_size:>9,} {f.file_size:>9,} {f.filename}" for f in largest)
    print(f"\nwheel {built.wheel.stat().st_size:,}, sdist {built.sdist.stat().st_size:,} bytes\n")
    print(table)
    assert built.wheel.stat().st_size < LIMITS["wheel"], table
    assert built.sdist.stat().st_size < LIMITS["sdist"], table


def test_the_metadata_are_the_project_s(built: Distribution) -> None:
    """The version stands in pyproject.toml alone; everything else is asked of the installed one."""
    with zipfile.ZipFile(built.wheel) as wheel:
        metadata = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        found = BytesParser().parsebytes(wheel.read(metadata))
        literal = re.compile(rf"""version\w*\W+["']{re.escape(PROJECT["version"])}["']""")
        own = [n for n in wheel.namelist() if n.endswith(".py") and "/tasks/" not in n]
        again = [n for n in own if literal.search(wheel.read(n).decode())]
    assert found["Version"] == PROJECT["version"]
    assert again == []
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(), re.M)
    links = dict(line.split(", ", 1) for line in found.get_all("Project-URL"))
    assert {"Repository", "Documentation", "Issues", "Changelog"} <= set(links)
    assert found["License-Expression"] == "Apache-2.0"


# -------------------------------------------------------------------- in an empty environment


def interpreters() -> list[Path]:
    """The oldest Python that is supported and the newest that is here, each as its executable."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), str(Path(sys.executable).parent)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders += map(str, pyenv.glob("versions/*/bin"))
    found: dict[tuple[int, int], Path] = {}
    for folder in folders:
        for file in Path(folder).glob("python3.*"):
            minor = file.name.removeprefix("python3.")
            if minor.isdigit() and int(minor) >= 11 and (3, int(minor)) not in found:
                works = subprocess.run([file, "-c", "import ensurepip"], capture_output=True)
                if works.returncode == 0:  # a shim of a version that is not active answers with 127
                    found[3, int(minor)] = file
    return [found[version] for version in sorted({min(found), max(found)})] if found else []


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips what needs a package index where none answers."""
    out = tmp_path_factory.mktemp("probe")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
               "--retries", "1", "--timeout", "20", "--dest", str(out), "pyyaml"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip("no package index can be reached: " + done.stderr.strip().splitlines()[-1])


def install(python: Path, what: str, folder: Path) -> Path:
    """A new environment with ``what`` in it; its folder of commands."""
    subprocess.run([python, "-m", "venv", folder], check=True, timeout=120)
    pip(folder / "bin", what)
    return folder / "bin"


def pip(scripts: Path, *what: str) -> None:
    command = [scripts / "python", "-m", "pip", "install", "--quiet", *what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=scripts.parent)
    assert done.returncode == 0, done.stderr


def call(scripts: Path, *args: object) -> str:
    """A command of an environment, run outside the repository and without its paths."""
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [scripts / "cptbench", *map(str, args)], capture_output=True, text=True, timeout=600,
        cwd=scripts.parent, env={**variables, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def name_of(python: Path) -> str:
    return python.name


@pytest.mark.parametrize("python", interpreters(), ids=name_of)
def test_the_light_core_verifies_an_entry(
    built: Distribution, index: None, python: Path, tmp_path: Path
) -> None:
    """The sdist into an empty environment, then the wheel in its place."""
    scripts = install(python, str(built.sdist), tmp_path / "env")
    for kind in ("sdist", "wheel"):
        if kind == "wheel":
            pip(scripts, "--force-reinstall", "--no-deps", str(built.wheel))
        assert call(scripts, "--version").strip() == PROJECT["version"]
        assert "sft" in call(scripts, "list", "trainers")
        verdict = call(scripts, "verify", ENTRY).splitlines()[-1]
        assert verdict.startswith(f"verified: {ENTRY.name} ")
    here = [p.name for p in next((tmp_path / "env/lib").glob("python*/site-packages")).iterdir()]
    assert not {"torch", "transformers", "tests", "tasks", "trainers"} & set(here)


@pytest.mark.long
def test_with_extras_nano_s_base_is_evaluated(
    built: Distribution, index: None, tmp_path: Path
) -> None:
    """On this Python alone: torch takes gigabytes on others, where an index has no CPU build."""
    wheel = f"{built.wheel}[train,grade]"
    scripts = install(Path(sys.executable), wheel, tmp_path / "env")
    lib = next((tmp_path / "env/lib").glob("python*/site-packages"))
    base = lib / "cpt_bench/tasks/nano/checkpoint"
    call(scripts, "eval", base, "--limit", 2, "--name", "base", "--out", tmp_path / "run")
    matrix = json.loads((tmp_path / "run/matrix.json").read_text())
    assert None not in matrix["accuracy"][0]
    reply = tmp_path / "reply.jsonl"
    reply.write_text(json.dumps({"reply": "2\\sqrt{3}", "gold": "2√3"}) + "\n")
    graded = call(scripts, "grade", reply, "--grader", "math")
    assert json.loads(graded.splitlines()[0])["score"] == 1
