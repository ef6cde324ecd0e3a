"""What a process and its children use while they run: memory, GPUs, time; and where they stop."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from cpt_bench import environment
from cpt_bench.errors import TrainerFault

MEMORY_EVERY, GPUS_EVERY = 0.25, 5.0
"""Seconds between two samples."""

UNLIMITED = 4
"""Without a limit, memory is sampled a quarter as often: each sample lists all processes."""


@dataclass(frozen=True)
class Limits:
    """Where a process is ended: wall time in seconds, resident memory in MiB; None is no limit."""

    seconds: float | None = None
    memory_mib: float | None = None


@dataclass
class Usage:
    """What a process and its children used so far.

    Attributes:
        wall_seconds: Since it started.
        peak_memory_mib: The most resident memory seen at one time, all processes together; pages
            that forked children share are counted in each.
        gpu_seconds: Seconds in which a GPU held memory of theirs, summed over GPUs.
    """

    wall_seconds: float = 0.0
    peak_memory_mib: float = 0.0
    gpu_seconds: float = 0.0


@dataclass
class Monitor:
    """Watches one process tree; :meth:`look` is called again and again."""

    pid: int
    what: str
    limits: Limits = field(default_factory=Limits)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self.start = self._gpus_at = time.monotonic()
        # The first look counts; there may be one only.
        self._memory_at = self.start - MEMORY_EVERY * UNLIMITED
        self._has_gpus = environment.has_gpus()

    def look(self) -> None:
        """Note what is used now.

        Raises:
            TrainerFault: A limit is passed; the caller ends the process.
        """
        now = time.monotonic()
        self.usage.wall_seconds = now - self.start
        if self.limits.seconds is not None and self.usage.wall_seconds > self.limits.seconds:
            raise TrainerFault(
                "timeout",
                f"{self.what}: ended after {self.limits.seconds:g} s, its time limit",
                todo="Give a longer --stage-timeout, or look where it hangs",
            )
        seldom = 1 if self.limits.memory_mib is not None else UNLIMITED
        if now - self._memory_at >= MEMORY_EVERY * seldom:
            self._memory_at = now
            self._memory()
        if self._has_gpus and now - self._gpus_at >= GPUS_EVERY:
            self.usage.gpu_seconds += (now - self._gpus_at) * environment.gpus_held(self._tree())
            self._gpus_at = now

    def _memory(self) -> None:
        used = sum(self._tree().values()) / 2**20
        self.usage.peak_memory_mib = max(self.usage.peak_memory_mib, used)
        limit = self.limits.memory_mib
        if limit is not None and used > limit:
            raise TrainerFault(
                "memory",
                f"{self.what}: ended at {used:.0f} MiB of memory, its limit is {limit:.0f} MiB",
                todo="Give a higher --memory-limit, or make its batches smaller",
            )

    def _tree(self) -> dict[int, int]:
        """The process and all below it, with their resident bytes."""
        import psutil

        found: dict[int, int] = {}
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(self.pid)
            for process in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found[process.pid] = process.memory_info().rss
        return found


def end_children(pid: int) -> None:
    """Kill all that ``pid`` started, and what they started, in whatever process group."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
