"""Shared fixtures: the tiny suite, and a tiny Qwen2.5-VL with random weights to train."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HERE = Path(__file__).parent
TINY = HERE / "tiny"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Qwen2.5-VL with nano's tokenizer and processor, in a folder."""
    torch = pytest.importorskip("torch")
    from cpt_bench.tasks.nano.base.architecture import build_model, build_processor

    folder = tmp_path_factory.mktemp("models") / "tiny"
    processor = build_processor()
    model = build_model(
        processor.tokenizer, seed=3, width=64, layers=2, heads=2, vision_width=32, vision_depth=1
    )
    # Random weights never answer in the form; a nudge towards one answer gives rewards to tell apart.
    assert model.dtype == torch.float32
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``cptbench`` as a user does, in an empty folder."""

    def call(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cpt_bench", *map(str, args)]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(command, **{**options, **kwargs})

    return call


SFT = [
    "--trainer",
    "sft",
    "--set",
    "learning_rate=1e-3",
    "--set",
    "max_steps=2",
    "--set",
    "device=cpu",
]


def sft_args(model: Path, *more: object) -> list[str]:
    return ["run", *SFT, "--suite", str(TINY), "--base", str(model), "--no-share", *map(str, more)]


@pytest.fixture(scope="session")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    command = [sys.executable, "-m", "cpt_bench", *sft_args(tiny_model, "--out", folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))
