"""The worker processes of one run: started on the right devices, stopped together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.worker.devices import Devices
from cpt_bench.worker.monitor import Limits
from cpt_bench.worker.process import Worker

Event = dict[str, Any]


class Workers:
    """Starts workers and remembers those that run.

    Args:
        devices: The GPUs that training and evaluation see.

    Attributes:
        train: Whether stages are still to be trained; then measurements leave them a core.
    """

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        self.train = False
        self.running: set[Worker] = set()
        self.stopping = False
        self.lock = threading.Lock()

    def start(
        self,
        work: Callable[..., Any],
        job: Any,
        log: Path,
        what: str,
        *,
        training: bool = False,
        limits: Limits | None = None,
        first: Callable[..., None] | None = None,
    ) -> Worker:
        """Start ``work(send, job)`` in a process.

        Args:
            work: A module-level function.
            job: What it is given; None for a worker that is sent one job after another.
            log: The file that takes what it prints.
            what: What this is, for errors: ``stage 3 (gqa), training``.
            training: Whether it sees the GPUs of training, or those of evaluation.
            limits: Where it is ended.
            first: Called with the job while the process has no thread yet.

        Raises:
            CptBenchError: The run is being stopped.
        """
        with self.lock:
            if self.stopping:
                raise CptBenchError(f"{what}: the run is being stopped")
            args = None if job is None else (job,)
            env = self.devices.env(training=training)
            worker = Worker(work, args, log, what, limits, first, env)
            self.running.add(worker)
        return worker

    def result(self, worker: Worker, on_event: Callable[[Event], None]) -> Any:
        """Wait for a worker's value, passing on its events."""
        try:
            return worker.result(on_event)
        finally:
            self.running.discard(worker)

    def end(self, worker: Worker) -> None:
        """Stop a worker that waits for jobs; what it holds is given back."""
        worker.stop()
        self.running.discard(worker)

    def stop(self) -> None:
        """Stop all that run; none is started after this."""
        with self.lock:
            self.stopping = True
        for worker in list(self.running):
            worker.stop()
