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
pytestmark = [pytest.mark.slow, pytest.mark.long]

from tests.support.commands import sft_args

KILLS = 10


def committed(folder: Path) -> dict[str, bytes]:
    """The ledger's records; one that is done again would be written again, with other seconds."""
    ledger = folder / "ledger"
    return {p.name: p.read_bytes() for p in ledger.glob("*.json")} if ledger.exists() else {}


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def test_ten_kills(finished: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A run is killed until it gets through; then the next one, until ten kills have struck."""
    rng, kills, runs = random.Random(20261122), 0, 0
    while kills < KILLS:
        folder, runs = tmp_path / f"run{runs}", runs + 1
        command = [sys.executable, "-m", "cpt_bench", *sft_args(tiny_model, "--out", folder)]
        known: dict[str, bytes] = {}
        while kills < KILLS:
            process = start(command)
            # Wait until the run gets somewhere new, then a random while longer: the moments spread
            # over the whole run instead of all falling into the imports.
            while process.poll() is None and len(committed(folder)) <= len(known):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.8))
            if process.poll() is not None:
                assert process.returncode == 0
                break
            # Half of the time the parent alone is killed: its children must not outlive it.
            if kills % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            now = committed(folder)
            assert {name: now[name] for name in known} == known, "a committed step was done again"
            known = now
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        now = committed(folder)
        assert {name: now[name] for name in known} == known, "a committed step was done again"
        for name in ("matrix.json", "metrics.json"):
            assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert kills == KILLS
