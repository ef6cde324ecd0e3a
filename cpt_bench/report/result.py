"""Runs as objects: numbers to compute with, shown as tables in terminals and notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.evaluation.predictions import graded
from cpt_bench.files import read_jsonl
from cpt_bench.metrics import Matrix
from cpt_bench.report import comparison_page, write_report
from cpt_bench.report.grids import Grid, grids, html_tables, latex, markdown
from cpt_bench.report.tables import (
    as_text,
    comparison_tables,
    matrix_html,
    matrix_table,
    metrics_html,
    metrics_table,
)
from cpt_bench.report.text import visible
from cpt_bench.results.load import Run
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, Suite


class Result:
    """One run: its accuracy matrix, its metrics and the model's predictions.

    It is shown as two tables, in a terminal and in a notebook.

    Attributes:
        folder: The run folder.
        suite: The suite, with its tasks in training order.
        record: ``run.json``: the settings, and the versions and hardware.
        spent: The times of the call that made the run, in seconds; None for a run that was only
            read. ``steps_done`` is 0 if all steps were already done.
    """

    def __init__(self, run: Run, spent: dict[str, Any] | None = None) -> None:
        self._run = run
        self.folder: Path = run.folder
        self.suite: Suite = run.suite
        self.record: dict[str, Any] = run.record
        self.spent = spent

    @property
    def name(self) -> str:
        """The method's name."""
        return str(self.record.get("trainer") or self.record.get("lane") or "run")

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        return self._run.seed

    @property
    def matrix(self) -> Matrix:
        """The accuracy matrix R in percent: ``tasks``, and ``accuracy`` of shape (T+1, T).

        Row 0 is the base model, row t the model after stage t; cells not measured are NaN.
        """
        return self._run.scores.matrix

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Every metric by its key, as in ``metrics.json``: value, interval, formula and more.

        A metric that needs a missing cell has the value None and names the cell under ``missing``.
        """
        return self._run.scores.metrics

    def value(self, metric: str) -> float:
        """A metric's value; NaN if a cell that it needs is missing.

        Raises:
            CptBenchError: There is no such metric.
        """
        return _value(self.metrics, metric)

    @property
    def missing(self) -> list[str]:
        """The cells that the run should have and lacks; empty for a finished run."""
        return self._run.scores.missing()

    def predictions(self, stage: int, task: str) -> list[dict[str, Any]]:
        """The model's predictions for the test questions of a task, after a stage.

        Args:
            stage: 0 for the base model, 1 after the first task.
            task: A task or general benchmark of the suite.

        Returns:
            One row per question: ``id``, ``question``, ``answers`` (gold), ``reply``, ``extracted``
            (the answer found in the reply), ``score`` in [0, 1], ``lenient`` (the score of the
            best reading), ``format_ok``, ``tokens``.

        Raises:
            CptBenchError: There is no such task, or it was not evaluated after that stage.
        """
        card = self.suite.card(task)
        last = len(self.suite.sequence)
        if not isinstance(stage, int) or not 0 <= stage <= last:
            raise CptBenchError(
                f"there is no stage {stage!r}",
                where=self.folder,
                todo=f"Give 0 (the base model) to {last}",
            )
        file = self._run.paths.predictions(stage, task)
        if not file.is_file():
            raise CptBenchError(f"{task} was not evaluated after stage {stage}", where=self.folder)
        samples = self._samples(task)
        rows = graded(read_jsonl(file), card, samples, self.suite.protocol)
        asked = [{"question": s.question, "answers": list(s.answers)} for s in samples]
        return [{"id": row["id"], **q, **row} for q, row in zip(asked, rows, strict=True)]

    def _samples(self, task: str) -> list[Sample]:
        splits = self._run.splits
        if task not in splits:
            splits[task] = load_split(self.suite.card(task), "test")
        return splits[task][: self.record.get("limit")]

    def report(self, path: str | Path | None = None) -> Path:
        """Write the run as one HTML file: matrix, curves, kinds of forgetting, samples.

        Args:
            path: The file; by default ``report.html`` in the run folder.

        Returns:
            The file that was written.
        """
        target = Path(path) if path is not None else self.folder / "report.html"
        return write_report([self.folder], target)

    def as_json(self) -> dict[str, Any]:
        """The run's numbers as plain data, for ``json.dump``."""
        return {
            "run": str(self.folder),
            "matrix": self._run.scores.matrix_json(),
            "metrics": self.metrics,
            **({"costs": self.spent} if self.spent is not None else {}),
        }

    def _title(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.suite.label}: {visible(self.name, 100, lines=False)}{seed}"

    def __rich__(self) -> RenderableType:
        title = Text(f"{self._title()}  {self.folder}")
        matrix = matrix_table(self._run.scores.matrix_json())
        return Group(title, matrix, Text(), metrics_table(self.metrics))

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        title = f"<p><b>{html.escape(self._title())}</b> {html.escape(str(self.folder))}</p>"
        matrix = matrix_html(self._run.scores.matrix_json())
        return title + matrix + metrics_html(self.metrics)


def _value(numbers: dict[str, dict[str, Any]], metric: str) -> float:
    if metric not in numbers:
        todo = did_you_mean(metric, [*numbers])
        raise CptBenchError(f"no metric is called {metric!r}", todo=todo)
    value = numbers[metric]["value"]
    return math.nan if value is None else float(value)


class Comparison:
    """Methods on the same test samples: numbers, differences, intervals, ties.

    It is shown as tables, in a terminal and in a notebook.

    Attributes:
        data: Everything as plain data: ``methods``, ``pairs``, ``over_orders``, ``missing`` …
        folders: The run folders that were compared.
        against: The method that the others are compared with; None: the one with the highest
            AvgAcc.
    """

    def __init__(
        self, data: dict[str, Any], folders: Sequence[Path], against: str | None = None
    ) -> None:
        self.data, self.folders, self.against = data, tuple(folders), against
        self.tables: list[Grid] = grids(data, against)

    @property
    def methods(self) -> list[str]:
        """The methods' names."""
        return [method["name"] for method in self.data["methods"]]

    def value(self, method: str, metric: str) -> float:
        """A method's number, the mean over its seeds; NaN if a cell is missing.

        Raises:
            CptBenchError: There is no such method or metric.
        """
        found = next((m for m in self.data["methods"] if m["name"] == method), None)
        if found is None:
            todo = did_you_mean(method, self.methods)
            raise CptBenchError(f"no method is called {method!r}", todo=todo)
        return _value(found["numbers"], metric)

    def markdown(self) -> str:
        """The tables in GitHub's Markdown."""
        return markdown(self.tables)

    def latex(self) -> str:
        """The tables in LaTeX, for the package booktabs."""
        return latex(self.tables)

    def page(self) -> str:
        """The tables as an HTML page."""
        return comparison_page(self.data, self.tables)

    def report(self, path: str | Path) -> Path:
        """Write one HTML file on all of the runs: tables, matrices, curves, samples.

        Returns:
            The file that was written.
        """
        return write_report(self.folders, Path(path))

    def __rich__(self) -> RenderableType:
        return Group(*comparison_tables(self.tables))

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        found = html_tables(self.tables)
        # The page that these tables are made for has styles of its own: a line for each interval.
        for tag in ("small", "em"):
            found = found.replace(f"<{tag}>", f'<{tag} style="display:block">')
        return found
