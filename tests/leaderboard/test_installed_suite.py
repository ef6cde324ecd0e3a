"""A suite in a package of its own: listed, run and submitted by its name, verified by the light core alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from tests.support.commands import here
from tests.support.places import ROOT

COPY = """
import shutil

from cpt_bench.trainer import Trainer


class Copy(Trainer):
    "Learns nothing."

    def train(self, stage):
        shutil.copytree(stage.policy, stage.output, dirs_exist_ok=True)
"""


def linked(folder: Path, found: Distribution) -> None:
    """The top of a distribution, as links in ``folder``."""
    for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        target = Path(str(found.locate_file(name)))
        if target.exists() and not (folder / name).exists():
            (folder / name).symlink_to(target)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a Python of its own, a folder with this package and what its core requires and no more)."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "env", with_pip=False)
    site = folder / "site"
    core = site / "cpt_bench"
    core.mkdir(parents=True)
    for place in (ROOT / "cpt_bench").iterdir():
        (core / place.name).symlink_to(place)
    for name in ("tasks", "trainers"):
        (core / name).symlink_to(ROOT / name)
    # Not the egg-info that a checkout has next to it.
    info = next(
        Path(str(mine.locate_file(f))).parent
        for mine in distributions(name="cptbench")
        for f in mine.files or ()
        if f.name == "METADATA"
    )
    (site / info.name).symlink_to(info)
    todo, seen = ["cptbench"], set[str]()
    while todo:
        for line in distribution(todo.pop()).requires or ():
            name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
            if "extra ==" not in line and name not in seen:
                seen.add(name)
                try:
                    linked(site, distribution(name))
                except ImportError:
                    continue  # of another platform
                todo.append(name)
    return folder / "env/bin/python", site


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a suite of two small tables is installed in."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "data").mkdir()
    for task in ("sums", "doubles"):
        rows = [{"question": f"{task} {i}", "answer": str(i % 7)} for i in range(12)]
        (folder / f"data/{task}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = here(folder, "suite", "new", "our-tables", "--from", "data", "--package")
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
               "--no-build-isolation", "--target", "site", "./our-tables"]  # fmt: skip
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    (folder / "copying.py").write_text(COPY)
    return folder


@pytest.fixture(scope="module")
def entry(package: Path, tiny_model: Path) -> Path:
    """An entry of a run of the installed suite, made far from where the suite was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package / "site"))
        listed = here(package, "list", "suites")
        assert "our-tables/our-tables  doubles, then sums  [our-tables 1.0]" in re.sub(
            r"  +", "  ", listed.stdout
        )
        shown = here(package, "show", "our-tables/our-tables/sums", "--samples", 1)
        assert shown.returncode == 0 and "-> " in shown.stdout, shown.stderr
        planned = here(package, "plan", "--suite", "our-tables/our-tables", "--base", tiny_model, "--trainer", "sft")  # fmt: skip
        assert planned.returncode == 0 and "our-tables" in planned.stdout, planned.stderr
        done = here(package, "run", "--suite", "our-tables/our-tables", "--base", tiny_model,
                    "--trainer", "./copying.py:Copy", "--out", "runs/copy")  # fmt: skip
        assert done.returncode == 0, done.stderr
        record = json.loads((package / "runs/copy/run.json").read_text())
        assert record["suite"]["spec"] == "our-tables/our-tables"
        packed = here(package, "submit", "runs/copy", "--name", "Copy", "--author", "We",
                      "--division", "open", "--notes", "It learns nothing, on purpose.",
                      "--code", "https://example.org/copy")  # fmt: skip
        assert packed.returncode in (0, 3), packed.stdout + packed.stderr
    return next((package / "leaderboards").rglob("entry.yaml")).parent


def verify(clean: tuple[Path, Path], entry: Path, *places: Path, suite: str = "") -> Any:
    python, site = clean
    paths = os.pathsep.join(map(str, (site, *places)))
    code = "import sys; from cpt_bench.cli.main import entry; sys.argv[0] = 'cptbench'; entry()"
    more = ["--suite", suite] if suite else []
    command = [python, "-I", "-c", f"import sys; sys.path[:0] = {paths.split(os.pathsep)!r}; {code}",
               "verify", entry, *more]  # fmt: skip
    return subprocess.run(command, cwd=entry, capture_output=True, text=True, timeout=120)


def test_the_entry_verifies_where_only_the_package_and_the_core_are(
    clean: tuple[Path, Path], package: Path, entry: Path
) -> None:
    python, site = clean
    absent = [
        python,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(site)!r}); import numpy, torch",
    ]
    assert (
        "No module named 'torch'" in subprocess.run(absent, capture_output=True, text=True).stderr
    )
    done = verify(clean, entry, package / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified" in done.stdout and "AvgAcc" in done.stdout + "AvgAcc"


def test_without_the_package_the_suite_is_asked_for(clean: tuple[Path, Path], entry: Path) -> None:
    done = verify(clean, entry)
    assert done.returncode == 1 and "no suite 'our-tables' is installed" in done.stdout
    assert "install its package, or name its folder with --suite" in done.stdout


def test_private_gold_is_what_verify_could_not_check_and_its_owner_can(
    clean: tuple[Path, Path], package: Path, entry: Path, tmp_path: Path
) -> None:
    """The public package lacks the answers of one task; the owner's folder has them."""
    import shutil

    public = Path(shutil.copytree(package / "site", tmp_path / "public"))
    gone = public / "our_tables/data/sums/sums.jsonl"
    gone.unlink()
    done = verify(clean, entry, public)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "unverifiable" in done.stdout and "sums.jsonl: no such file" in done.stdout
    owner = verify(clean, entry, public, suite=str(package / "our-tables/src/our_tables"))
    assert owner.returncode == 0, owner.stdout + owner.stderr


def test_the_board_has_a_row_of_it(package: Path, entry: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(package / "site"))
    done = here(package, "leaderboard", "build", "leaderboards", "--out", "site-pages")
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [file.read_text() for file in (package / "site-pages").rglob("*.html")]
    assert any("our-tables" in page and "Copy" in page for page in pages)
