"""What a person sees while a run runs: the matrix filling up, or plain lines without a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cpt_bench.cli.tables import matrix_table

if TYPE_CHECKING:
    from cpt_bench.run_plan import Plan

Event = dict[str, Any]


@contextlib.contextmanager
def progress(
    plan: Plan, folder: Path, quiet: bool, verbose: bool = False
) -> Iterator[Callable[[Event], None]]:
    """Yield what takes a run's events; it speaks on standard error when ``quiet``.

    ``verbose`` also shows what a command prints.
    """
    console = Console(stderr=quiet, highlight=False)
    title = f"{plan.suite.name}: {plan.method.name}, seed {plan.seed}"
    console.print(f"[bold]{title}[/bold] → {folder}")
    if not console.is_terminal:
        yield Lines(plan, sys.stderr if quiet else sys.stdout, verbose)
        return
    board = Board(plan, console, verbose)
    with Live(board, console=console, refresh_per_second=8, transient=True):
        yield board.tell


class Lines:
    """One line a finished thing."""

    def __init__(self, plan: Plan, stream: Any, verbose: bool) -> None:
        self.plan, self.stream, self.verbose = plan, stream, verbose
        self.lock = threading.Lock()
        self.scores: dict[int, list[str]] = {}

    def __call__(self, event: Event) -> None:
        with self.lock:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        suite = self.plan.suite
        if event["kind"] == "trained":
            reused = f" (from {event['reused']})" if event.get("reused") else ""
            self._say(f"stage {event['stage']} trained on {event['task']}{reused}")
        elif event["kind"] == "cell":
            row = self.scores.setdefault(event["stage"], [])
            row.append(f"{event['name']} {event['accuracy']:.1f}")
            if len(row) == len(suite.sequence) + len(suite.general):
                self._say(f"stage {event['stage']} evaluated: {', '.join(row)}")

        elif event["kind"] == "output" and self.verbose:
            self._say(f"  {event['line']}")
        elif event["kind"] == "warning":
            self._say(f"warning: {event['line']}")

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


class Board:
    """The matrix so far, and a bar for what is being trained."""

    def __init__(self, plan: Plan, console: Console, verbose: bool) -> None:
        self.console, self.verbose = console, verbose
        suite = plan.suite
        rows = len(suite.sequence) + 1
        self.matrix: dict[str, Any] = {
            "tasks": list(suite.sequence),
            "accuracy": [[None] * len(suite.sequence) for _ in range(rows)],
            "general": {
                "benchmarks": list(suite.general),
                "accuracy": [[None] * len(suite.general) for _ in range(rows)],
            },
        }
        self.training: Event = {}
        self.said = ""

    def tell(self, event: Event) -> None:
        if event["kind"] == "train":
            self.training = event
        elif event["kind"] == "trained":
            self.training, self.said = {}, ""
        elif event["kind"] == "output":
            self.said = event["line"]
            if self.verbose:
                self.console.print(Text(event["line"]))
        elif event["kind"] == "warning":
            self.console.print(Text(f"warning: {event['line']}", style="yellow"))
        elif event["kind"] == "cell":
            tasks, general = self.matrix["tasks"], self.matrix["general"]
            where, names = (
                (self.matrix, tasks) if event["name"] in tasks else (general, general["benchmarks"])
            )
            where["accuracy"][event["stage"]][names.index(event["name"])] = event["accuracy"]

    def __rich__(self) -> Group:
        return Group(matrix_table(self.matrix), Text(""), self._bar())

    def _bar(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = self.training
        if not now:
            table.add_row(Text("evaluating", style="dim"))
            return table
        figures = [
            f"{label} {now[key]:.3g}"
            for key, label in (("loss", "loss"), ("reward", "reward"), ("accuracy", "accuracy"))
            if key in now
        ]
        table.add_row(
            f"stage {now['stage']} {now['task']}",
            ProgressBar(total=now["steps"] or 1, completed=now["step"], width=30),
            f"{now['step']}/{now['steps'] or '…'}",
            Text("  ".join(figures) or self.said[:60], style="dim"),
        )
        return table
