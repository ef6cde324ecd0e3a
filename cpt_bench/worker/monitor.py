"""Measures the memory, GPUs and time that a process and its children use, and enforces limits."""

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
    """When to end a process: wall time in seconds, resident memory in MiB; None: no limit."""

    seconds: float | None = None
    memory_mib: float | None = None


@dataclass
class Usage:
    """What a process and its children used so far.

    Attributes:
        wall_seconds: Since it started.
        peak_memory_mib: The largest resident memory measured, summed over all processes; pages
            that forked children share are counted in each.
        gpu_seconds: Seconds in which they held memory on a GPU, summed over GPUs.
    """

    wall_seconds: float = 0.0
    peak_memory_mib: float = 0.0
    gpu_seconds: float = 0.0


@dataclass
class Monitor:
    """Monitors one process tree; :meth:`look` is called repeatedly."""

    pid: int
    what: str
    limits: Limits = field(default_factory=Limits)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self.start = self._gpus_at = time.monotonic()
        # The first call takes a sample; there may be only one.
        self._memory_at = self.start - MEMORY_EVERY * UNLIMITED
        self._has_gpus = environment.has_gpus()

    def look(self) -> None:
        """Measure the current usage.

        Raises:
            TrainerFault: A limit is exceeded; the caller ends the process.
        """
        now = time.monotonic()
        self.usage.wall_seconds = now - self.start
        if self.limits.seconds is not None and self.usage.wall_seconds > self.limits.seconds:
            raise TrainerFault(
                "timeout",
                f"{self.what}: ended after {self.limits.seconds:g} s, its time limit",
                todo="Give a longer --stage-timeout, or look where it hangs",
            )
        factor = 1 if self.limits.memory_mib is not None else UNLIMITED
        if now - self._memory_at >= MEMORY_EVERY * factor:
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
        """The process and all its descendants, with their resident bytes."""
        import psutil

        found: dict[int, int] = {}
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(self.pid)
            for process in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found[process.pid] = process.memory_info().rss
        return found


def end_children(pid: int) -> None:
    """Kill all descendants of ``pid``, in whatever process group they are."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
