"""Shared fixtures: the tiny suite, and a tiny Qwen2.5-VL with random weights to train."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HERE = Path(__file__).parent
TINY = HERE / "support/tiny"


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


def here(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """``cptbench`` in this process and ``folder``: its fork server is warm from the second time on.

    What happens when a *process* starts, is killed or interrupted is tried in processes.
    """
    from cpt_bench.cli.main import entry

    out, err, before, code = io.StringIO(), io.StringIO(), (Path.cwd(), sys.argv), 0
    os.chdir(folder)
    sys.argv = ["cptbench", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            entry()
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception:
        traceback.print_exc(file=err)
        code = 1
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


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
    done = here(folder.parent, *sft_args(tiny_model, "--out", folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))
