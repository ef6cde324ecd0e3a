"""Killed with SIGKILL at ten random moments, resumed: the same matrix, nothing trained twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from tests.test_run import finished, sft_args  # noqa: F401 - a fixture

KILLS = 10


def committed(folder: Path) -> dict[str, bytes]:
    ledger = folder / "ledger"
    return {p.name: p.read_bytes() for p in ledger.glob("*.json")} if ledger.exists() else {}


def test_ten_kills(finished: Path, tiny_model: Path, tmp_path: Path) -> None:  # noqa: F811
    folder, rng = tmp_path / "run", random.Random(20261122)
    command = [sys.executable, "-m", "cpt_bench", *sft_args(tiny_model, "--out", folder)]
    known: dict[str, bytes] = {}
    killed_at = []
    for kill in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)  # fmt: skip
        # Wait for the run to get somewhere new, then a random while longer: moments spread over the
        # whole run instead of all falling into the imports.
        deadline = time.monotonic() + 120
        while process.poll() is None and len(committed(folder)) <= len(known):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1.5))
        if process.poll() is not None:
            break
        # Half of the time the parent alone is killed: its children must not outlive it.
        if kill % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        now = committed(folder)
        assert {name: now[name] for name in known} == known, "a committed step was done again"
        known = now
        killed_at.append(len(known))
    assert len(killed_at) >= 5, f"the run was over after {killed_at}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    now = committed(folder)
    assert {name: now[name] for name in known} == known
    for name in ("matrix.json", "metrics.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
