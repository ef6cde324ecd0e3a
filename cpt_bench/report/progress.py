"""Shows a run's events as lines: one for each stage that is trained or evaluated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]


class Lines:
    """Writes one line for each finished step.

    Args:
        write: Receives each line.
        verbose: Whether to show the trainer's output.
    """

    def __init__(self, write: Callable[[str], None], verbose: bool = False) -> None:
        self.write, self.verbose = write, verbose
        self.lock = threading.Lock()
        self.benchmarks = 0
        self.cells: dict[int, list[str]] = {}

    def __call__(self, event: Event) -> None:
        """Handle one event of :func:`cpt_bench.api.run`."""
        with self.lock:  # a stage is evaluated while the next one trains
            for line in self._lines(event):
                self.write(line)

    def _lines(self, event: Event) -> list[str]:
        kind = event["kind"]
        if kind == "begin":
            self.benchmarks = len(event["tasks"]) + len(event["general"])
            return [f"{event['title']} → {event['folder']}"]
        if kind == "trained":
            reused = f" (from {event['reused']})" if event.get("reused") else ""
            return [f"stage {event['stage']} trained on {event['task']}{reused}"]
        if kind == "cell":
            row = self.cells.setdefault(event["stage"], [])
            row.append(f"{event['name']} {event['accuracy']:.1f}")
            whole = len(row) == self.benchmarks
            return [f"stage {event['stage']} evaluated: {', '.join(row)}"] if whole else []
        if kind == "output" and self.verbose:
            return [f"  {event['line']}"]
        if kind == "warning":
            return [f"warning: {event['line']}"]
        return []
