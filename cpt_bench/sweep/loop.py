"""Decides when each job starts and which are restarted, independently of how they are run.

Two rules. A job waits while a running one is about to commit a stage that both share: the stage is
then copied, not trained twice. A job whose *worker* was lost (killed, or its machine went down) is
restarted and resumes from its ledger; one that failed by itself is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from cpt_bench.sweep import jobs as disk
from cpt_bench.sweep.jobs import Job

Event = dict[str, Any]


class Ended(NamedTuple):
    """The outcome of one attempt.

    Attributes:
        name: The job's name.
        status: ``done``; ``lost``: the worker was lost; ``failed``: the job reported an error.
        why: The error, if it was not ``done``.
    """

    name: str
    status: str
    why: str = ""


class Backend(Protocol):
    """Runs jobs: in processes of this machine, or on a cluster.

    Attributes:
        slots: How many jobs it accepts at a time.
    """

    slots: float

    def start(self, job: Job, keep: str) -> None:
        """Start a job; ``keep`` is its ``--keep`` option."""

    def wait(self, seconds: float) -> list[Ended]:
        """The attempts that ended, waiting at most ``seconds`` for one."""

    def stop(self) -> None:
        """End all running jobs."""


class State(NamedTuple):
    """One job's state so far."""

    status: str = "waiting"
    attempts: int = 0
    seconds: float = 0.0
    why: str = ""


TICK = 0.5
"""Seconds between two checks of the ledgers of running jobs."""


class Loop:
    """Runs jobs in their order.

    Args:
        jobs: The sweep's jobs.
        backend: The backend that runs them.
        retries: How often a lost job is restarted.
        keep: Which checkpoints are kept at the end.
        tell: Receives events: ``started``, ``lost``, ``done``, ``failed``, ``tick``.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        backend: Backend,
        retries: int,
        keep: str,
        tell: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.backend, self.retries, self.keep, self.tell = backend, retries, keep, tell
        self.states = {job.name: State() for job in jobs}
        self.began: dict[str, float] = {}
        self.known: set[str] = set()
        self.absent: set[str] = set()
        self.owners: dict[str, list[tuple[Job, int]]] = {}
        for job in jobs:
            for stage, key in job.chain:
                self.owners.setdefault(key, []).append((job, stage))

    def run(self) -> dict[str, State]:
        """Run all jobs; returns the outcome of each."""
        for name, job in self.jobs.items():
            if disk.finished(job):
                self._set(name, status="done", why="finished before")
        try:
            while self._with("waiting", "running"):
                self._start_what_may()
                self.tell({"kind": "tick"})
                for ended in self.backend.wait(TICK):
                    self._ended(ended)
        finally:
            self.backend.stop()
        self._thin()
        return self.states

    def _with(self, *statuses: str) -> list[Job]:
        return [self.jobs[name] for name, s in self.states.items() if s.status in statuses]

    def _set(self, name: str, **changes: Any) -> None:
        self.states[name] = self.states[name]._replace(**changes)

    def _start_what_may(self) -> None:
        self.absent.clear()
        for job in self._with("waiting"):
            running = self._with("running")
            if len(running) >= self.backend.slots:
                return
            if self.holds_back(job, running):
                continue
            lends = disk.lends(job, self.jobs.values())
            self.began[job.name] = time.monotonic()
            self._set(job.name, status="running", attempts=self.states[job.name].attempts + 1)
            self.backend.start(job, "all" if lends else self.keep)
            self.tell({"kind": "started", "job": job.name,
                       "attempt": self.states[job.name].attempts})  # fmt: skip

    def holds_back(self, job: Job, running: Sequence[Job]) -> str | None:
        """The running job that is about to commit a stage which ``job`` would share, or None."""
        for other in running:
            theirs = other.keys()
            common = [key for _, key in job.chain if key in theirs]
            if common and not self._committed(common[-1]):
                return other.name
        return None

    def _committed(self, key: str) -> bool:
        """Whether any run of the sweep has done the stage of that key."""
        if key not in self.known | self.absent:  # once per tick: the file system may be slow
            done = any(disk.committed(job, stage) for job, stage in self.owners[key])
            (self.known if done else self.absent).add(key)
        return key in self.known

    def _ended(self, ended: Ended) -> None:
        state = self.states[ended.name]
        spent = state.seconds + time.monotonic() - self.began[ended.name]
        status, why = ended.status, ended.why
        if status == "lost":
            again = state.attempts <= self.retries
            status = "waiting" if again else "failed"
            self.tell({"kind": "lost", "job": ended.name, "why": why, "again": again})
        self._set(ended.name, status=status, why=why, seconds=spent)
        if status in ("done", "failed"):
            self.tell({"kind": status, "job": ended.name, "why": why, "seconds": spent})

    def _thin(self) -> None:
        """Drop the weights that were kept for other jobs once those are finished."""
        if self.keep == "all" or self._with("failed"):
            return  # a failed run may be resumed later and need these weights
        for job in self.jobs.values():
            if disk.lends(job, self.jobs.values()):
                disk.thin(job, self.keep)


def shared(jobs: Sequence[Job]) -> dict[str, tuple[int, str]]:
    """Job to the last stage that it copies from an earlier job, and that job's name.

    Jobs that share only the base model's row are left out.
    """
    owners: dict[str, str] = {}
    out = {}
    for job in jobs:
        taken = [(stage, owners[key]) for stage, key in job.chain if stage and key in owners]
        if taken:
            out[job.name] = taken[-1]
        for _, key in job.chain:
            owners.setdefault(key, job.name)
    return out
