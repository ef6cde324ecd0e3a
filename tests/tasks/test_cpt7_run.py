"""All of cpt7 through the code a cluster runs: fixtures in the hub's layout, a two-layer Qwen2.5-VL, a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
# The limit is for a machine that is busy.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

from tests.support.commands import here
from tests.support.cpt7_fixtures import RFT, SFT, build_hub, build_suite

BEGINNING = 2
"""Tasks of the suite that two processes run: the processes are tried, not the tasks again."""


@pytest.fixture(scope="session")
def prepared(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's folder, its data prepared beside it."""
    folder = tmp_path_factory.mktemp("cpt7")
    hub = build_hub(folder / "hub")
    suite = build_suite(folder / "cpt7", str(tiny_model), max_new_tokens=6)
    build_suite(folder / "beginning", str(tiny_model), max_new_tokens=6, tasks=BEGINNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPTBENCH_DATA", str(folder / "data"))
        command(folder, "data", "prepare", "--suite", f"{suite}@mini", "--from", hub)
    return suite


@pytest.fixture(autouse=True)
def place(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(prepared.with_name("data")))


def command(folder: Path, *args: object) -> str:
    done = here(folder, *args)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(suite: Path, out: Path, trainer: str, settings: list[str], *more: object) -> dict[str, Any]:
    changes = [word for setting in settings for word in ("--set", setting)]
    said = command(
        out.parent, "run", "--suite", suite, "--tier", "mini", "--trainer", trainer, *changes,
        "--recipe", f"cpt7/{trainer}", "--out", out, "--no-share", "--keep", "last", "--json", *more,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(said)
    return found


def whole(found: dict[str, Any]) -> None:
    matrix = found["matrix"]
    assert matrix["tasks"] == [
        "scienceqa", "textvqa", "vizwiz", "gqa", "geometry3k", "pathvqa", "superclevr",
    ]  # fmt: skip
    assert len(matrix["accuracy"]) == 8
    assert all(cell is not None for row in matrix["accuracy"] for cell in row)
    general = matrix["general"]
    assert general["benchmarks"] == ["mmmu", "mmlu_pro", "pope"]
    for t, row in enumerate(general["accuracy"]):  # before and after
        assert [cell is not None for cell in row] == [t in (0, 7)] * 3
    assert found["metrics"]["FM"]["value"] is not None
    assert found["metrics"]["GeneralDelta"]["value"] is not None


def test_sft_alone_and_on_two_processes(prepared: Path, tmp_path: Path) -> None:
    """Two processes with half the batch each make the steps of one process with all of it.

    To the rounding of sums in another order: each step's loss and gradient norm, and so R.
    """
    alone = run(prepared, tmp_path / "one", "sft", SFT)
    whole(alone)
    settings = [*[s for s in SFT if not s.startswith("batch_size")], "batch_size=1"]
    launch = ["--launch", "torchrun --nproc_per_node 2"]
    both = run(prepared.with_name("beginning"), tmp_path / "two", "sft", settings, *launch)
    rows = alone["matrix"]["accuracy"][: BEGINNING + 1]
    assert both["matrix"]["accuracy"] == [row[:BEGINNING] for row in rows]
    assert both["matrix"]["general"]["accuracy"][0] == alone["matrix"]["general"]["accuracy"][0]
    for t in range(1, BEGINNING + 1):
        record = json.loads((tmp_path / f"two/ledger/stage-{t}.train.json").read_text())
        assert record["facts"]["processes"] == 2
        for one, two in zip(steps(tmp_path / "one", t), steps(tmp_path / "two", t), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-2)
            assert two["samples"] == one["samples"]


def steps(folder: Path, t: int) -> list[dict[str, Any]]:
    file = next(folder.glob(f"stages/{t}-*/train.jsonl"))
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rft_alone(prepared: Path, tmp_path: Path) -> None:
    whole(run(prepared, tmp_path / "run", "rft", RFT))
