"""A run folder's predictions -> matrix and metrics, without torch.

A run ends with this, and ``cptbench score`` repeats it: every number of a run is recomputed from
the models' replies and the suite's gold answers, and never copied from earlier results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpt_bench import general
from cpt_bench.files import write_json
from cpt_bench.metrics import (
    DRAWS,
    Matrix,
    bootstrap_means,
    cell_name,
    evaluate,
    general_delta,
    interval,
    matrix_to_json,
    missing_cells,
    passport,
    rounded,
)
from cpt_bench.metrics.passports import TWO_TASKS
from cpt_bench.results.divergence import divergence_passports, read_divergence
from cpt_bench.results.folder import RunFolder, is_joint
from cpt_bench.results.losses import Kinds, lost_and_won
from cpt_bench.results.outcomes import Array, Outcomes, percent, read_outcomes
from cpt_bench.results.suites import suite_of
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, Suite


class Scores(NamedTuple):
    """Everything that is computed from a run's predictions.

    Attributes:
        matrix: R in percent.
        outcomes: Task or general benchmark to its per-sample scores.
        metrics: Key to passport, as in ``metrics.json``.
        general: General benchmarks, in the suite's order.
        rows: The rows that this kind of run has (a joint run: only the base and the last).
        called: Row to the benchmarks that the protocol evaluates in it.
    """

    matrix: Matrix
    outcomes: dict[str, Outcomes]
    metrics: dict[str, Any]
    general: tuple[str, ...]
    rows: tuple[int, ...] | None = None
    called: Mapping[int, tuple[str, ...]] = {}

    def matrix_json(self) -> dict[str, Any]:
        """``matrix.json``: R strict, the best reading's R, the share of replies with the form."""

        def rows(names: tuple[str, ...], field: str) -> list[list[float | None]]:
            return _table([percent(getattr(self.outcomes[n], field)) for n in names], names)

        tasks = self.matrix.tasks
        return {
            **matrix_to_json(self.matrix),
            "unit": "percent",
            "n": [self.outcomes[t].strict.shape[1] for t in tasks],
            "best_reading": rows(tasks, "lenient"),
            "format_ok": rows(tasks, "format_ok"),
            **self._habits(tasks),
            "general": {
                "benchmarks": list(self.general),
                "n": [self.outcomes[b].strict.shape[1] for b in self.general],
                "accuracy": rows(self.general, "strict") if self.general else [],
                "best_reading": rows(self.general, "lenient") if self.general else [],
                "format_ok": rows(self.general, "format_ok") if self.general else [],
                **self._habits(self.general),
            },
        }

    def _habits(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Share of replies that reason, in percent, and mean length in tokens, if known."""
        found = [self.outcomes[n] for n in names]
        out = {}
        reasoned = [o.reasoned for o in found if o.reasoned is not None]
        if names and len(reasoned) == len(names):
            out["reasoned"] = _table([percent(r) for r in reasoned], names)
        tokens = [o.tokens for o in found if o.tokens is not None]
        if names and len(tokens) == len(names):
            out["reply_tokens"] = _table([t.mean(axis=1) for t in tokens], names)
        return out

    def missing(self) -> list[str]:
        """The cells, general ones included, that the protocol requires and the run lacks."""
        tasks = self.matrix.tasks
        rows = range(len(tasks) + 1) if self.rows is None else self.rows
        return [
            cell_name(tasks, t, j)
            for t, j in np.argwhere(np.isnan(self.matrix.accuracy)).tolist()
            if t in rows
        ] + [
            general_cell(name, t, tasks)
            for t in rows
            for name in self.general
            if name in self.called.get(t, ()) and np.isnan(self.outcomes[name].strict[t]).any()
        ]


def _table(columns: list[Array], names: tuple[str, ...]) -> list[list[float | None]]:
    matrix = Matrix(names, np.array(columns).T)
    return matrix_to_json(matrix)["accuracy"]  # type: ignore[no-any-return]


def general_cell(name: str, row: int, tasks: tuple[str, ...]) -> str:
    """A readable name for a general benchmark's cell: ``G[3][pope]: pope after stage 3 (gqa)``."""
    when = "by the base model" if row == 0 else f"after stage {row} ({tasks[row - 1]})"
    return f"G[{row}][{name}]: {name} {when}"


def score(folder: Path, splits: dict[str, list[Sample]] | None = None) -> Scores:
    """Regrade every prediction in ``folder`` and compute the matrix and all metrics.

    Args:
        folder: A run folder.
        splits: Test splits of this suite by name; missing ones are loaded and added.
    """
    suite, run = suite_of(folder)
    paths = RunFolder(folder, suite.sequence)
    splits = {} if splits is None else splits
    outcomes = {}
    for name in (*suite.sequence, *suite.general):
        if name not in splits:
            splits[name] = load_split(suite.card(name), "test")
        outcomes[name] = read_outcomes(paths, suite, name, splits[name][: run["limit"]])
    scores = compute(suite, outcomes, read_divergence(paths, suite))
    stages = range(len(suite.sequence) + 1)
    others = general.delta([paths.general(t) for t in stages], DRAWS)
    if others is not None:
        scores.metrics["GeneralDelta_others"] = others
    return scores._replace(rows=(0, len(suite.sequence))) if is_joint(run) else scores


def compute(
    suite: Suite,
    outcomes: dict[str, Outcomes],
    divergence: Mapping[int, Mapping[str, list[dict[str, Any]]]] | None = None,
) -> Scores:
    """Matrix and metrics from per-sample outcomes, and from KL rows if there are any."""
    tasks = suite.sequence
    accuracy = np.array([percent(outcomes[task].strict) for task in tasks]).T
    matrix = Matrix(tasks, accuracy)
    split = {name: outcomes[name].kinds(name in tasks) for name in (*tasks, *suite.general)}
    draws, shares = [], {}
    for j, task in enumerate(tasks):
        extra = _shares(outcomes[task].strict, j, split[task])
        stacked = 100 * np.vstack([outcomes[task].strict, *extra.values()])
        drawn = bootstrap_means(stacked, DRAWS, seed=task)
        draws.append(drawn[:, : len(tasks) + 1])
        for i, key in enumerate(extra, len(tasks) + 1):
            shares[task, key] = (float(stacked[i].mean()), drawn[:, i])
    resampled = np.stack(draws, axis=-1)
    samples = [outcomes[t].strict.shape[1] for t in tasks]
    metrics = evaluate(matrix, samples, resampled)
    metrics |= _share_passports(matrix, samples, shares)
    metrics["GeneralDelta"] = _general(suite, outcomes, split)
    metrics |= divergence_passports(suite, divergence or {}, DRAWS)
    called = {t: suite.benchmarks_after(t) for t in range(len(tasks) + 1)}
    return Scores(matrix, outcomes, metrics, suite.general, called=called)


# ------------------------------------------------------------------- flips and kinds of forgetting

SHARES = {
    "Flips_1to0": ("right just after learning, wrong at the end", "mean_{j<T} P(right -> wrong)"),
    "Flips_0to1": ("wrong just after learning, right at the end", "mean_{j<T} P(wrong -> right)"),
    "Lost": ("right at the peak, wrong at the end", "Lost_format + Lost_mode + Lost_content"),
    "Won": ("wrong at the peak, right at the end", "Won - Lost = FM"),
    "Lost_format": ("lost, but right in the best reading", "of Lost: right answer, wrong form"),
    "Lost_mode": ("lost, but right when reasoning or directness is forced", "of Lost: habit"),
    "Lost_content": ("lost, and wrong either way", "of Lost: knowledge or skill"),
}  # fmt: skip
"""Key to title and formula; each is a share of samples in percent, averaged over the tasks j<T."""


def _shares(strict: Array, column: int, split: Kinds | None) -> dict[str, Array]:
    """Key to per-sample amounts, for a task without missing cells; the last task has none."""
    last = len(strict) - 1
    if column >= last - 1 or split is None:
        return {}
    lost, won = lost_and_won(strict[column + 1], strict[last])
    out = {"Flips_1to0": lost, "Flips_0to1": won, "Lost": split.lost, "Won": split.won}
    out["Lost_format"] = split.format
    if split.mode is not None and split.content is not None:
        out |= {"Lost_mode": split.mode, "Lost_content": split.content}
    return out


def _share_passports(
    matrix: Matrix, samples: list[int], shares: Mapping[tuple[str, str], tuple[float, Array]]
) -> dict[str, Any]:
    tasks, out = matrix.tasks[:-1], {}
    missing = [*missing_cells(matrix)] or ([] if tasks else [TWO_TASKS])
    for key, (title, formula) in SHARES.items():
        of_task = {task: shares[task, key] for task in tasks if (task, key) in shares}
        absent = missing or [
            f"what {task} lost, asked again with a forced beginning (not measured in this run)"
            for task in tasks
            if task not in of_task
        ]
        drawn = np.sum([d for _, d in of_task.values()], axis=0)
        out[key] = passport(
            None if absent else math.fsum(v for v, _ in of_task.values()) / len(tasks),
            title=title,
            formula=f"{formula}; % of samples" if key in ("Lost", "Won") else formula,
            sign="0 to 100; a loss counts as positive",
            source="sample-wise flips (arXiv 2510.17776); for graded scores, amounts",
            divisor=None if absent else len(tasks),
            n=sum(samples[:-1]),
            interval=None if absent else interval(drawn / len(tasks)),
            missing=absent,
            tasks={
                task: {"value": rounded(v), "interval": interval(d)._asdict()}
                for task, (v, d) in of_task.items()
            },
        )
    return out


def _general(
    suite: Suite, outcomes: dict[str, Outcomes], split: Mapping[str, Kinds | None]
) -> dict[str, Any]:
    last = len(suite.sequence)
    measured = {
        when: {
            name: outcomes[name].strict[row]
            for name in suite.general
            if not np.isnan(outcomes[name].strict[row]).any()
        }
        for when, row in (("before", 0), ("after", last))
    }

    def extra(name: str) -> dict[str, Any]:
        found = split[name]
        amounts = {} if found is None else found._asdict()
        means = {k: None if a is None else rounded(100 * a.mean()) for k, a in amounts.items()}
        return {"kinds": means}

    out = general_delta(measured["before"], measured["after"], DRAWS, extra, suite.general)
    if out["value"] is None and suite.general:
        rows = {"before": 0, "after": last}
        out["missing"] = [
            general_cell(name, row, suite.sequence)
            for when, row in rows.items()
            for name in suite.general
            if name not in measured[when]
        ]
    return out


def write_scores(folder: Path) -> Scores:
    """Recompute and write ``matrix.json`` and ``metrics.json``."""
    scores = score(folder)
    write_json(folder / "matrix.json", scores.matrix_json())
    write_json(folder / "metrics.json", scores.metrics)
    return scores
