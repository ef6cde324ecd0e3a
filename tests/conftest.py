"""Shared fixtures: the tiny suite, and a tiny Qwen2.5-VL with random weights to train."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import here, sft_args

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def subnormal_floats() -> Iterator[None]:
    """What a worker process sets up for itself (:mod:`cpt_bench.worker.threads`) ends with the test it ran in.

    Numbers close to 0 would be 0 in the tests that follow, which Hypothesis refuses to draw from.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


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
    """Run ``cptbench`` in an empty folder; with ``env`` or ``input`` in a process of its own."""

    def call(*args: object, **process: Any) -> subprocess.CompletedProcess[str]:
        if not process:
            return here(tmp_path, *args)
        command = [sys.executable, "-m", "cpt_bench", *map(str, args)]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(command, **{**options, **process})

    return call


@pytest.fixture(scope="session")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = here(folder.parent, *sft_args(tiny_model, "--out", folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))
