"""A run folder's predictions -> matrix and metrics, without torch.

The runner ends with this and ``cptbench score`` is this: every number of a run is recomputed from
what the models wrote and the suite's gold, never copied from where it was first seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench import general
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation import graded
from cpt_bench.files import read_json, read_jsonl, write_json
from cpt_bench.metrics import (
    Matrix,
    bootstrap_means,
    evaluate,
    general_delta,
    matrix_to_json,
    missing_cells,
)
from cpt_bench.rundir import RunFolder
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite, open_suite

DRAWS = 2000
"""Bootstrap resamples behind each interval."""

Array = npt.NDArray[np.float64]


class Outcomes(NamedTuple):
    """Per-sample scores of one benchmark: shape (T+1, n); NaN rows where it was not measured."""

    strict: Array
    lenient: Array
    format_ok: Array


class Scores(NamedTuple):
    """All that is computed from a run's predictions.

    Attributes:
        matrix: R in percent.
        outcomes: Task or general benchmark to its per-sample scores.
        metrics: Key to passport, as in ``metrics.json``.
        general: General benchmarks, in the suite's order.
    """

    matrix: Matrix
    outcomes: dict[str, Outcomes]
    metrics: dict[str, Any]
    general: tuple[str, ...]

    def matrix_json(self) -> dict[str, Any]:
        """``matrix.json``: R strict, the best reading's R, the share of replies with the form."""

        def rows(names: tuple[str, ...], field: str) -> list[list[float | None]]:
            table = np.array([percent(getattr(self.outcomes[n], field)) for n in names]).T
            return matrix_to_json(Matrix(names, table))["accuracy"]  # type: ignore[no-any-return]

        tasks = self.matrix.tasks
        return {
            **matrix_to_json(self.matrix),
            "unit": "percent",
            "n": [self.outcomes[t].strict.shape[1] for t in tasks],
            "best_reading": rows(tasks, "lenient"),
            "format_ok": rows(tasks, "format_ok"),
            "general": {
                "benchmarks": list(self.general),
                "n": [self.outcomes[b].strict.shape[1] for b in self.general],
                "accuracy": rows(self.general, "strict") if self.general else [],
                "best_reading": rows(self.general, "lenient") if self.general else [],
                "format_ok": rows(self.general, "format_ok") if self.general else [],
            },
        }


def percent(scores: Array) -> Array:
    """Row means in percent; NaN rows stay NaN."""
    return np.asarray(100 * scores.mean(axis=1), dtype=np.float64)


def suite_of(folder: Path) -> tuple[Suite, dict[str, Any]]:
    """The suite of a run folder, checked to be the version it was run with, and ``run.json``."""
    run = read_json(folder / "run.json")
    try:
        spec, order, fingerprint = run["suite"]["spec"], run["order"], run["suite"]["fingerprint"]
    except (KeyError, TypeError):
        raise CptBenchError("not a cptbench run", where=folder / "run.json") from None
    suite = open_suite(spec).reordered(tuple(order))
    if suite.fingerprint() != fingerprint:
        raise CptBenchError(
            f"was run with another version of suite {suite.name}",
            where=folder,
            todo=f"Install cptbench {run['versions'].get('cptbench', '')} to score it",
        )
    return suite, run


def score(folder: Path) -> Scores:
    """Regrade every prediction in ``folder`` and compute the matrix and all metrics."""
    suite, run = suite_of(folder)
    paths = RunFolder(folder, suite.sequence)
    stages = len(suite.sequence) + 1
    outcomes = {}
    for name in (*suite.sequence, *suite.general):
        card = suite.card(name)
        samples = load_split(card, "test")[: run["limit"]]
        table = np.full((3, stages, len(samples)), np.nan)
        for t in range(stages):
            file = paths.predictions(t, name)
            if not file.exists():
                continue
            for i, row in enumerate(graded(read_jsonl(file), card, samples, suite.protocol)):
                table[:, t, i] = row["score"], row["lenient"], row["format_ok"]
        outcomes[name] = Outcomes(*table)
    scores = compute(suite, outcomes)
    others = general.delta([paths.general(t) for t in range(stages)], DRAWS)
    if others is not None:
        scores.metrics["GeneralDelta_others"] = others
    return scores


def compute(suite: Suite, outcomes: dict[str, Outcomes]) -> Scores:
    """Matrix and metrics of per-sample outcomes."""
    tasks = suite.sequence
    accuracy = np.array([percent(outcomes[task].strict) for task in tasks]).T
    matrix = Matrix(tasks, accuracy)
    whole = not any(missing_cells(matrix))
    resampled = None
    if whole:
        draws = [bootstrap_means(100 * outcomes[t].strict, DRAWS, seed=t) for t in tasks]
        resampled = np.stack(draws, axis=-1)
    metrics = evaluate(matrix, [outcomes[t].strict.shape[1] for t in tasks], resampled)
    metrics["GeneralDelta"] = _general(suite, outcomes)
    return Scores(matrix, outcomes, metrics, suite.general)


def _general(suite: Suite, outcomes: dict[str, Outcomes]) -> dict[str, Any]:
    measured = {
        when: {
            name: outcomes[name].strict[row]
            for name in suite.general
            if not np.isnan(outcomes[name].strict[row]).any()
        }
        for when, row in (("before", 0), ("after", len(suite.sequence)))
    }
    return general_delta(measured["before"], measured["after"], DRAWS)


def write_scores(folder: Path) -> Scores:
    """Recompute and write ``matrix.json`` and ``metrics.json``."""
    scores = score(folder)
    write_json(folder / "matrix.json", scores.matrix_json())
    write_json(folder / "metrics.json", scores.metrics)
    return scores
