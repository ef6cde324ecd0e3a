"""Where jobs run: in processes of this machine, or as tasks of a Ray cluster.

Both start the same command in a separate process, which ends when its worker ends
(:mod:`cpt_bench.cli.attached`). A Ray cluster's machines must see the same files under the same
paths and have the same cptbench installed; Ray decides what runs where.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import LOST, CptBenchError
from cpt_bench.sweep.jobs import Job
from cpt_bench.sweep.loop import Ended
from cpt_bench.sweep.spec import Resources


class Order(NamedTuple):
    """One attempt at a job, as it is sent to a worker."""

    command: tuple[str, ...]
    log: str
    folder: str
    environment: dict[str, str]


def order(job: Job, keep: str, overlap: bool) -> Order:
    """The process of a job; its output goes to ``<out>/.sweep/<name>.log``."""
    # Not --overlap: the run decides on overlap itself, since it sees its machine's GPUs.
    extra = () if overlap else ("--no-overlap",)
    command = (sys.executable, "-m", "cpt_bench.cli.attached", *job.arguments, "--keep", keep)
    log = job.folder.parent / ".sweep" / f"{job.name}.log"
    passed = ("PYTHONPATH", "HF_HUB_OFFLINE", "CPTBENCH_DATA")
    environment = {key: os.environ[key] for key in passed if key in os.environ}
    return Order((*command, *extra), str(log), str(Path.cwd()), environment)


def launch(found: Order) -> subprocess.Popen[bytes]:
    """Start the process; it ends when its standard input closes."""
    log = Path(found.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            found.command,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            cwd=found.folder,
            env={**os.environ, **found.environment},
            start_new_session=True,  # Ctrl-C reaches only the sweep, which ends the jobs
        )


def ended(name: str, code: int, log: str) -> Ended:
    """The outcome by exit status: ``lost`` if killed or the machine failed, else ``failed``."""
    if code == 0:
        return Ended(name, "done")
    words = _last_line(Path(log))
    if code < 0 or code in (LOST, 137, 143):
        return Ended(name, "lost", words if code == LOST else f"its process was killed ({code})")
    return Ended(name, "failed", words or f"exited with {code}")


def _last_line(log: Path) -> str:
    if not log.is_file():
        return ""  # this machine cannot see the file
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("cptbench: ")] or lines
    return errors[-1].strip()[:300] if errors else ""


class Local:
    """Processes of this machine.

    Args:
        workers: The number of simultaneous jobs.
        overlap: Evaluate a stage while the next one trains.
    """

    def __init__(self, workers: int, overlap: bool) -> None:
        self.slots: float = workers
        self.overlap = overlap
        self.running: dict[str, tuple[subprocess.Popen[bytes], str]] = {}

    def start(self, job: Job, keep: str) -> None:
        found = order(job, keep, self.overlap)
        self.running[job.name] = launch(found), found.log

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while True:
            out = []
            for name, (process, log) in [*self.running.items()]:
                code = process.poll()
                if code is not None:
                    del self.running[name]
                    _release(process)
                    out.append(ended(name, code, log))
            if out or time.monotonic() >= until:
                return out
            time.sleep(0.05)

    def stop(self) -> None:
        for process, _ in self.running.values():
            _release(process)
        for process, _ in self.running.values():
            process.wait()
        self.running.clear()


def _release(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def carry_out(found: Order) -> int:
    """One attempt, in a Ray worker; returns the exit status."""
    process = launch(found)
    try:
        return process.wait()
    finally:
        _release(process)
        process.wait()


def _answers(address: str) -> None:
    """Refuse an address without a server: Ray's own client would abort after a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # auto, local: Ray finds the address itself
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _silent(address, str(error)) from None


def _silent(address: str, line: str) -> CptBenchError:
    return CptBenchError(
        f"no Ray cluster answers ({line})",
        where=f"--ray {address}",
        todo="Start one with: ray start --head",
    )


class Ray:
    """Tasks of a Ray cluster.

    Args:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
        resources: The resources of one run.

    Raises:
        CptBenchError: Ray is not installed, or no cluster answers.
    """

    slots = float("inf")  # Ray queues what does not fit

    def __init__(self, address: str, resources: Resources) -> None:
        try:
            import ray
        except ImportError:
            raise CptBenchError(
                "Ray is not installed here",
                where=f"--ray {address}",
                todo="Install it with: pip install 'cptbench[ray]'",
            ) from None
        self.ray = ray
        _answers(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
            line = " ".join(str(error).split())[:200]
            raise _silent(address, line) from None
        self.overlap = resources.cpus >= 2
        # The loop restarts lost runs and reports it; Ray would do so silently.
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0}
        self.task: Any = ray.remote(**options)(carry_out)
        self.running: dict[Any, tuple[str, str]] = {}

    def start(self, job: Job, keep: str) -> None:
        found = order(job, keep, self.overlap)
        self.running[self.task.options(name=job.name).remote(found)] = job.name, found.log

    def wait(self, seconds: float) -> list[Ended]:
        if not self.running:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait([*self.running], num_returns=1, timeout=seconds)
        return [self._ended(reference) for reference in ready]

    def _ended(self, reference: Any) -> Ended:
        name, log = self.running.pop(reference)
        try:
            return ended(name, self.ray.get(reference), log)
        except self.ray.exceptions.RayTaskError as error:
            return Ended(name, "failed", " ".join(str(error.cause).split())[:300])
        except self.ray.exceptions.RayError as error:
            return Ended(name, "lost", f"its worker was lost ({type(error).__name__})")

    def stop(self) -> None:
        for reference in self.running:
            with contextlib.suppress(Exception):  # the cluster may be gone already
                self.ray.cancel(reference, force=True)
        self.running.clear()
        self.ray.shutdown()
