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
import numpy.typing as npt

from cpt_bench import general
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import graded, read_predictions
from cpt_bench.files import parse_jsonl, read_bytes, write_json
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
from cpt_bench.results.folder import RunFolder, is_joint
from cpt_bench.results.losses import Kinds, kinds_of, lost_and_won, prefixes
from cpt_bench.results.suites import suite_of
from cpt_bench.sources import load_split
from cpt_bench.suite import Protocol, Sample, Suite, TaskCard

Array = npt.NDArray[np.float64]


class Outcomes(NamedTuple):
    """The scores of each sample of one benchmark: shape (T+1, n), NaN rows where not measured.

    Attributes:
        strict: The scores that rank, in [0, 1].
        lenient: Scores of the best reading.
        format_ok: 1 if the reply has the protocol's form.
        tokens: Length of the reply; None if unknown.
        reasoned: 1 if the reply contains a thought; None if unknown.
        forced: After the last stage: prefix name to best-reading scores of replies whose beginning
            was forced, shape (n,), NaN where not asked. None if nothing was asked.
    """

    strict: Array
    lenient: Array
    format_ok: Array
    tokens: Array | None = None
    reasoned: Array | None = None
    forced: dict[str, Array] | None = None

    def kinds(self, task: bool) -> Kinds | None:
        """The losses by the end, by kind; see :func:`cpt_bench.results.losses.kinds_of`."""
        return kinds_of(self.strict, self.lenient, self.forced, task)


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


def percent(scores: Array) -> Array:
    """Row means in percent; NaN rows stay NaN."""
    return np.asarray(100 * scores.mean(axis=1), dtype=np.float64)


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


def read_outcomes(paths: RunFolder, suite: Suite, name: str, samples: list[Sample]) -> Outcomes:
    """One benchmark's predictions of all stages, graded."""
    card, protocol, last = suite.card(name), suite.protocol, len(suite.sequence)
    thought = protocol.form.thought[0]
    table = np.full((5, last + 1, len(samples)), np.nan)
    for t in range(last + 1):
        file = paths.predictions(t, name)
        if not file.exists():
            continue
        rows = read_predictions(file, [sample.id for sample in samples])
        for i, row in enumerate(graded(rows, card, samples, protocol)):
            length = math.nan if row["tokens"] is None else row["tokens"]
            thinks = bool(thought) and thought in row["reply"]
            table[:, t, i] = row["score"], row["lenient"], row["format_ok"], length, thinks
    strict, lenient, form, tokens, reasoned = table
    forced = _read_forced(paths, card, protocol, samples, last)
    return Outcomes(strict, lenient, form, tokens, reasoned, forced)


def _read_forced(
    paths: RunFolder, card: TaskCard, protocol: Protocol, samples: list[Sample], last: int
) -> dict[str, Array] | None:
    found = {}
    for prefix in prefixes(protocol):
        file = paths.forced(last, prefix, card.name)
        if not file.exists():
            continue
        rows = read_predictions(file, [sample.id for sample in samples], some=True)
        asked = {row["id"] for row in rows}
        at = [i for i, s in enumerate(samples) if s.id in asked]
        scores = np.full(len(samples), np.nan)
        regraded = graded(rows, card, [samples[i] for i in at], protocol)
        scores[at] = [row["lenient"] for row in regraded]
        found[prefix] = scores
    return found or None


def read_divergence(paths: RunFolder, suite: Suite) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Stage to benchmark to rows of ``kl.jsonl``, for the stages that have one."""
    out: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for t in range(1, len(suite.sequence) + 1):
        file = paths.divergence(t)
        if file.exists():
            for where, row in parse_jsonl(read_bytes(file), file):
                figures = [row.get(key) for key in ("kl", "entropy", "base_entropy")]
                numbers = all(isinstance(x, int | float) and abs(x) < 1e300 for x in figures)
                if not numbers or not isinstance(row.get("name"), str):
                    raise CptBenchError(
                        "not a KL row: name, kl, entropy, base_entropy", where=where
                    )
                out.setdefault(t, {}).setdefault(row["name"], []).append(row)
    return out


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
    metrics |= divergence_passports(suite, divergence or {})
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


# ----------------------------------------------------------------------------------- KL to the base


def divergence_passports(
    suite: Suite, rows: Mapping[int, Mapping[str, list[dict[str, Any]]]]
) -> dict[str, Any]:
    """``KL_new`` and ``KL_general`` after the last stage, and each stage's figures."""
    last, out = len(suite.sequence), {}
    for key, title in (
        ("KL_new", "KL(base || policy) on the last task's prompts"),
        ("KL_general", "KL(base || policy) on general prompts"),
    ):
        stages = {}
        for t, found in rows.items():
            names = [suite.sequence[t - 1]] if key == "KL_new" else [*suite.general]
            if names and all(name in found for name in names):
                stages[t] = _divergence([found[name] for name in names], f"{key}:{t}")
        end = stages.get(last)
        out[key] = passport(
            None if end is None else end["kl"],
            title=title,
            formula="mean over prompts of KL(base || policy) a token, along base's greedy reply",
            sign="0 = unchanged; nats a token",
            source="RL's Razor (arXiv 2509.04259); exact over the vocabulary, teacher-forced",
            divisor=None if end is None else end["n"],
            n=None if end is None else end["n"],
            missing=[f"{key} after stage {last} (not measured in this run)"] if end is None else (),
            stages={str(t): figures for t, figures in stages.items()},
        )
        if end is not None:
            out[key]["interval"] = end["interval"]
    return out


def _divergence(groups: list[list[dict[str, Any]]], seed: str) -> dict[str, Any]:
    """Means over benchmarks of the means over their prompts."""
    drawn = np.zeros(DRAWS)
    for i, group in enumerate(groups):
        values = np.array([[row["kl"] for row in group]])
        drawn += bootstrap_means(values, DRAWS, f"{seed}:{i}")[:, 0] / len(groups)

    def mean(field: str) -> float:
        return rounded(float(np.mean([np.mean([row[field] for row in g]) for g in groups])))

    return {
        "kl": mean("kl"),
        "interval": interval(drawn, method="bootstrap over prompts")._asdict(),
        "entropy": mean("entropy"),
        "base_entropy": mean("base_entropy"),
        "n": sum(len(group) for group in groups),
    }


def write_scores(folder: Path) -> Scores:
    """Recompute and write ``matrix.json`` and ``metrics.json``."""
    scores = score(folder)
    write_json(folder / "matrix.json", scores.matrix_json())
    write_json(folder / "metrics.json", scores.metrics)
    return scores
