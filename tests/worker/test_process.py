"""A worker that is asked one thing after the other: its answers, its errors, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.worker.process import Worker
from tests.support.waiting import wait_for
from tests.support.workers import carry_out


def test_a_worker_that_takes_orders(tmp_path: Path) -> None:
    worker = Worker(carry_out, None, tmp_path / "log", "nothing yet")
    heard: list[dict[str, Any]] = []
    for order in ("a", {"b": 1}, None):
        worker.ask(order, "this", heard.append)
    assert [(h["number"], h["order"]) for h in heard] == [(0, "a"), (1, {"b": 1}), (2, None)]
    assert {h["pid"] for h in heard} == {worker.process.pid}
    with pytest.raises(CptBenchError, match="ValueError: no idea"):
        worker.ask("raise", "that", heard.append)
    assert not worker.process.is_alive()


def test_a_worker_that_dies_between_two_orders(tmp_path: Path) -> None:
    worker = Worker(carry_out, None, tmp_path / "log", "nothing yet")
    worker.ask("a", "this", lambda event: None)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.join()
    with pytest.raises(TrainerFault, match="that: the process was killed by SIGKILL") as caught:
        worker.ask("b", "that", lambda event: None)
    assert caught.value.exit_code == 75
    idle = Worker(carry_out, None, tmp_path / "log", "idle")
    idle.stop()
    assert not idle.process.is_alive()


ALONE = """
import sys, time
from pathlib import Path
from cpt_bench.worker.process import Worker
from tests.support.workers import carry_out
worker = Worker(carry_out, None, Path(sys.argv[1]), "this")
worker.ask("a", "this", lambda event: print(event["pid"], flush=True))
time.sleep(600)
"""


def test_a_waiting_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ALONE, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    zombie = psutil.STATUS_ZOMBIE
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == zombie)
