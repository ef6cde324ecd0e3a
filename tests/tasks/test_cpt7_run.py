"""All of cpt7 through the code a cluster runs: fixtures in the hub's layout, a two-layer Qwen2.5-VL, a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # on a machine that is busy

from tests.support.cpt7_fixtures import build_hub, build_suite

SMALL = ["max_steps=2", "device=cpu", "dtype=float32", "sharding=none", "gradient_checkpointing=false", "attention=eager", "learning_rate=1e-4", "max_pixels=4096", "min_pixels=4096"]  # fmt: skip
SFT = [*SMALL, "batch_size=2", "gradient_accumulation=1"]
RFT = [*SMALL, "use_vllm=false", "prompts_per_step=2", "rollouts=2", "gradient_accumulation=1", "updates_per_generation=2"]  # fmt: skip


@pytest.fixture(scope="session")
def prepared(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """The suite's folder, and the environment in which its data are prepared."""
    folder = tmp_path_factory.mktemp("cpt7")
    hub = build_hub(folder / "hub")
    suite = build_suite(folder / "cpt7", str(tiny_model), max_new_tokens=6)
    env = {**os.environ, "CPTBENCH_DATA": str(folder / "data")}
    command(env, "data", "prepare", "--suite", f"{suite}@mini", "--from", hub)
    return suite, env


def command(env: dict[str, str], *args: object) -> Any:
    line = [sys.executable, "-m", "cpt_bench", *map(str, args)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=900, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(
    prepared: Any, out: Path, trainer: str, settings: list[str], *more: object
) -> dict[str, Any]:
    suite, env = prepared
    changes = [word for setting in settings for word in ("--set", setting)]
    said = command(
        env, "run", "--suite", suite, "--tier", "mini", "--trainer", trainer, *changes,
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


def test_sft_alone_and_on_two_processes(prepared: Any, tmp_path: Path) -> None:
    """Two processes with half the batch each make the steps of one process with all of it.

    To the rounding of sums in another order: each step's loss and gradient norm, and so R.
    """
    alone = run(prepared, tmp_path / "one", "sft", SFT)
    whole(alone)
    settings = [*[s for s in SFT if not s.startswith("batch_size")], "batch_size=1"]
    launch = ["--launch", "torchrun --nproc_per_node 2"]
    both = run(prepared, tmp_path / "two", "sft", settings, *launch)
    whole(both)
    assert both["matrix"] == alone["matrix"]
    for t in range(1, 8):
        record = json.loads((tmp_path / f"two/ledger/stage-{t}.train.json").read_text())
        assert record["facts"]["processes"] == 2
        for one, two in zip(steps(tmp_path / "one", t), steps(tmp_path / "two", t), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-2)
            assert two["samples"] == one["samples"]


def steps(folder: Path, t: int) -> list[dict[str, Any]]:
    file = next(folder.glob(f"stages/{t}-*/train.jsonl"))
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rft_alone(prepared: Any, tmp_path: Path) -> None:
    whole(run(prepared, tmp_path / "run", "rft", RFT))
