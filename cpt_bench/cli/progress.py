"""What a person sees while a run runs: the matrix filling up, or plain lines without a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cpt_bench.errors import CONTINUE, Interrupted
from cpt_bench.report.progress import Event, Lines
from cpt_bench.report.tables import matrix_table


@contextlib.contextmanager
def progress(quiet: bool, verbose: bool = False) -> Iterator[Display]:
    """Yield what takes a run's events; it writes to standard error when ``quiet``.

    Args:
        quiet: Whether standard output is left to the result.
        verbose: Also show what the trainer prints.

    Raises:
        Interrupted: Ctrl-C; the same command goes on.
    """
    display = Display(quiet, verbose)
    try:
        yield display
    except KeyboardInterrupt:
        raise Interrupted("interrupted", where=display.folder, todo=CONTINUE) from None
    finally:
        display.close()


class Display:
    """Takes a run's events, and shows them as the stream allows.

    Attributes:
        folder: The run folder; empty before the run begins.
    """

    def __init__(self, quiet: bool, verbose: bool) -> None:
        stream = sys.stderr if quiet else sys.stdout
        self.console = Console(file=stream, highlight=False)
        self.verbose, self.folder = verbose, ""
        self.lines = Lines(partial(print, file=stream, flush=True), verbose)
        self.board: Board | None = None
        self.live: Live | None = None

    def __call__(self, event: Event) -> None:
        """Take one event of :func:`cpt_bench.api.run`."""
        if event["kind"] == "begin":
            self.folder = event["folder"]
        if not self.console.is_terminal:
            self.lines(event)
        elif event["kind"] == "begin":
            self.console.print(f"[bold]{event['title']}[/bold] → {event['folder']}")
            self.board = Board(event, self.console if self.verbose else None)
            self.live = Live(self.board, console=self.console, refresh_per_second=8, transient=True)
            self.live.start()
        elif event["kind"] == "warning":
            self.console.print(Text(f"warning: {event['line']}", style="yellow"))
        elif self.board is not None:
            self.board.show(event)

    def close(self) -> None:
        """Take the moving part off the terminal."""
        if self.live is not None:
            self.live.stop()


class Board:
    """The matrix so far, and a bar for what is being trained.

    Args:
        begin: The event that a run begins with.
        console: Where to show what the trainer prints; None: not at all.
    """

    def __init__(self, begin: Event, console: Console | None) -> None:
        self.console = console
        tasks, general = begin["tasks"], begin["general"]
        rows = range(len(tasks) + 1)
        self.matrix: dict[str, Any] = {
            "tasks": tasks,
            "accuracy": [[None] * len(tasks) for _ in rows],
            "general": {
                "benchmarks": general,
                "accuracy": [[None] * len(general) for _ in rows],
            },
        }
        self.training: Event = {}
        self.output = ""

    def show(self, event: Event) -> None:
        if event["kind"] == "train":
            self.training = event
        elif event["kind"] == "trained":
            self.training, self.output = {}, ""
        elif event["kind"] == "output":
            self.output = event["line"]
            if self.console is not None:
                self.console.print(Text(event["line"]))
        elif event["kind"] == "cell":
            tasks, general = self.matrix["tasks"], self.matrix["general"]
            where, names = (
                (self.matrix, tasks) if event["name"] in tasks else (general, general["benchmarks"])
            )
            where["accuracy"][event["stage"]][names.index(event["name"])] = event["accuracy"]

    def __rich__(self) -> Group:
        return Group(matrix_table(self.matrix, running=True), Text(""), self._bar())

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
            Text("  ".join(figures) or self.output[:60], style="dim"),
        )
        return table
