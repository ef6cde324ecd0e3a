"""The commands for cpt7 in docs/cpt7.md, README and docs/models.md, copied from the pages, from an empty home to a matrix.

A hub on loopback serves small data sets and two-layer models under the real names. What makes the
runs small is added at the end of a command; nothing in it is changed.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
# The limit is for a machine that is busy.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

from cpt_bench.files import read_json
from cpt_bench.models.checkpoint import weights_digest
from tests.support import hub as fake
from tests.support.commands import here
from tests.support.cpt7_fixtures import RFT, SFT, TEST, TRAIN, build_suite
from tests.support.picture_families import make
from tests.support.places import ROOT

LARGE, SMALL = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"
NEWER = "Qwen/Qwen3-VL-4B-Instruct"
TASKS = 2
"""Tasks of the sequence: all seven are run in ``test_cpt7_run``."""
LIMIT = ["--limit", "2", "--keep", "last"]
ADDED = {
    "run --suite cpt7 --trainer sft": [*LIMIT, *(w for s in SFT for w in ("--set", s))],
    "run --suite cpt7 --trainer rft": [*LIMIT, *(w for s in RFT for w in ("--set", s))],
    "cptbench eval": ["--limit", "2"],
}
"""What is added to a command that has these words."""


def commands(heading: str) -> list[list[str]]:
    """The commands of the first block below a heading of docs/cpt7.md."""
    page = (ROOT / "docs/cpt7.md").read_text(encoding="utf-8")
    block = re.search(rf"^## {heading}$.*?```sh\n(.*?)```", page, re.M | re.S)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


def all_of(page: str) -> list[list[str]]:
    """The commands for cpt7 in all blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [
        shlex.split(line, comments=True)
        for line in lines
        if re.match(r"cptbench .*--suite cpt7\b", line)
    ]


@pytest.fixture(scope="module")
def served(
    cpt7_tables: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[fake.Hub]:
    """The hub; its model of 3B is the other one with other weights."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("served")
    (folder / "datasets").symlink_to(cpt7_tables)
    for name in (LARGE, SMALL):
        shutil.copytree(tiny_model, folder / "models" / name)
    file = folder / "models" / SMALL / "model.safetensors"
    save_file({k: v * 1.25 for k, v in load_file(file).items()}, file, {"format": "pt"})
    make("Qwen3-VL", folder / "models" / NEWER)
    with fake.serving(folder) as server:
        yield server


@pytest.fixture(scope="module")
def home(served: fake.Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home, where cpt7 has the fixtures' counts and short replies."""
    folder = tmp_path_factory.mktemp("home")
    small = build_suite(folder / "suite/cpt7", LARGE, TRAIN, TEST, max_new_tokens=6, tasks=TASKS)
    shutil.copy(ROOT / "tasks/cpt7/base_config.json", small)
    (folder / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        fake.point_at(served.url, folder / ".cache/huggingface", patch)
        for variable in ("CPTBENCH_DATA", "HF_HOME"):
            patch.delenv(variable)
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
        patch.setattr("cpt_bench.tasks.cpt7.FOLDER", small)
        yield folder


def types(home: Path, words: list[str], status: int = 0) -> str:
    """What a command of the page shows, with what makes it small."""
    line = " ".join(words)
    added = [word for key, more in ADDED.items() if key in line for word in more]
    done = here(home / "work", *words[1:], *added)
    assert done.returncode == status, (line, done.stderr[-3000:])
    return done.stdout + done.stderr


def test_from_an_empty_home_to_a_matrix(home: Path, served: fake.Hub) -> None:
    install, *path = commands("From an empty machine to a matrix")
    assert install[:2] == ["pip", "install"] and len(path) == 6
    plan, prepare, status, sft, rft, compare = path
    types(home, status, status=1)
    assert "base model" in types(home, plan) and not served.asked("resolve")
    lines = types(home, prepare)
    assert f"{LARGE}: " in lines and "files to fetch" in lines and "FAILED" not in lines
    assert "base model           made" in lines and lines.count(" made ") == 1 + 2 * TASKS + 3
    served.log.clear()
    assert "MISSING" not in types(home, status)
    for trainer, command in (("sft", sft), ("rft", rft)):
        assert "after" in types(home, command)
        folder = next((home / "work/runs").glob(f"cpt7-{trainer}-seed0*"))
        whole(folder)
        base = read_json(folder / "run.json")["base"]
        assert base["path"] == LARGE and base["revision"] == served.commit("models", LARGE)
        assert base["weights"] == weights_digest(served.folder / "models" / LARGE)
    assert not served.log, "all was there"
    assert "sft" in types(home, compare)


def whole(folder: Path) -> None:
    matrix = read_json(folder / "matrix.json")
    assert len(matrix["accuracy"]) == TASKS + 1
    assert all(cell is not None for row in matrix["accuracy"] for cell in row)
    assert [None not in row for row in matrix["general"]["accuracy"]] == [True, False, True]


def test_another_base_is_another_model_s_run(home: Path, served: fake.Hub) -> None:
    run, evaluate = commands("Base model")
    types(home, run)
    (folder,) = (home / "work/runs").glob("cpt7-Qwen2.5-VL-3B-Instruct-sft-seed0*")
    whole(folder)
    base = read_json(folder / "run.json")["base"]
    assert (base["path"], base["revision"]) == (SMALL, served.commit("models", SMALL))
    assert base["weights"] == weights_digest(served.folder / "models" / SMALL)
    types(home, evaluate)
    row = read_json(home / "work/runs/cpt7-Qwen2.5-VL-3B-Instruct-seed0/run.json")
    assert row["base"] == base
    types(home, ["cptbench", "compare", "runs", "--json", "all.json"])
    found: dict[str, Any] = read_json(home / "work/all.json")
    assert {m["name"] for m in found["methods"]} >= {
        f"sft (from Qwen2.5-VL-3B-Instruct {base['weights'][:8]})",
    }


def test_so_does_another_family_by_its_name(home: Path, served: fake.Hub) -> None:
    run, _ = commands("Base model")
    types(home, [NEWER if word == SMALL else word for word in run])
    (folder,) = (home / "work/runs").glob("cpt7-Qwen3-VL-4B-Instruct-sft-seed0*")
    whole(folder)
    assert read_json(folder / "run.json")["base"]["path"] == NEWER


def test_the_commands_of_readme(home: Path, served: fake.Hub) -> None:
    (run,) = all_of("README.md")
    types(home, run)
    (folder,) = (home / "work/runs").glob("cpt7-Qwen2.5-VL-3B-Instruct-rft-seed0*")
    whole(folder)
    base = read_json(folder / "run.json")["base"]
    assert (base["path"], base["revision"]) == (SMALL, served.commit("models", SMALL))


def test_the_commands_of_the_page_on_models(home: Path) -> None:
    run, plan = all_of("docs/models.md")
    assert "run it with" in types(home, plan)
    types(home, run)
    (folder,) = (home / "work/runs").glob("cpt7-Qwen3-VL-4B-Instruct-rft-seed0*")
    whole(folder)
    assert read_json(folder / "run.json")["base"]["path"] == NEWER


def test_one_task_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's last way of preparing: what is there is in no other tier's place."""
    _, command = commands("Data")
    lines = types(home, command)
    assert lines.count("textvqa/") == 2 and "base model" not in lines
