"""Results of other harnesses: per-sample scores and their provenance, as files."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.files import digest, read_json, read_jsonl, write_json, write_jsonl
from cpt_bench.metrics import general_delta

EVALUATORS = {
    "lm-eval": "cpt_bench.general.lm_eval",
    "vlmevalkit": "cpt_bench.general.vlmevalkit",
}
"""Evaluator to its module, which is imported only when used; see :func:`evaluator`."""

FORMAT = 1


class Spec(NamedTuple):
    """A benchmark of a harness, as given to ``--general``: ``lm-eval:mmlu_pro``."""

    evaluator: str
    task: str

    @property
    def name(self) -> str:
        return f"{self.evaluator}:{self.task}"

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return "".join(c if c.isalnum() or c in "-_." else "_" for c in self.name)


class Measured(NamedTuple):
    """The result of a harness.

    Attributes:
        rows: One row per sample, in the harness's order: ``id``, ``reply``, ``score`` in [0, 1].
        score: The harness's own headline number, in percent.
        provenance: Evaluator, version, task, its version, settings: all that affects the number.
    """

    rows: list[dict[str, Any]]
    score: float
    provenance: dict[str, Any]


def parse(text: str) -> Spec:
    """``evaluator:task`` as a :class:`Spec`.

    Raises:
        CptBenchError: No such evaluator, or no task.
    """
    evaluator, _, task = text.partition(":")
    if evaluator not in EVALUATORS or not task:
        known = [f"{name}:TASK" for name in EVALUATORS]
        raise CptBenchError(
            f"{text!r} is not a general benchmark",
            where="--general",
            todo=did_you_mean(text, known),
        )
    return Spec(evaluator, task)


def write(folder: Path, spec: Spec, weights: str, found: Measured) -> list[Path]:
    """Write a measurement to ``folder``: ``<slug>.jsonl`` and ``<slug>.json``.

    Raises:
        CptBenchError: A score is missing or outside [0, 1], or an id repeats: the harness changed.
    """
    ids = [row["id"] for row in found.rows]
    if not ids or len(set(ids)) != len(ids):
        raise CptBenchError(f"{len(ids)} samples with {len(set(ids))} ids", where=spec.name)
    for row in found.rows:
        if not (isinstance(row["score"], float) and 0 <= row["score"] <= 1):
            raise CptBenchError(
                f"sample {row['id']} has score {row['score']!r}, not one in [0, 1]", where=spec.name
            )
    rows, facts = paths(folder, spec)
    write_jsonl(rows, found.rows)
    mean = 100 * sum(row["score"] for row in found.rows) / len(found.rows)
    about = {
        "format": FORMAT,
        "benchmark": spec.name,
        "weights": weights,
        "n": len(found.rows),
        "mean_of_samples": mean,
        "headline": found.score,
        "rows": {"file": rows.name, "sha256": digest(rows)},
        "provenance": found.provenance,
    }
    write_json(facts, about)
    return [rows, facts]


def paths(folder: Path, spec: Spec) -> tuple[Path, Path]:
    """The files of a measurement: per-sample rows, provenance."""
    return folder / f"{spec.slug}.jsonl", folder / f"{spec.slug}.json"


def read(facts: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A measurement's provenance and rows.

    Raises:
        CptBenchError: The rows are not those that were written with the provenance.
    """
    about = read_json(facts)
    rows = facts.with_suffix(".jsonl")
    try:
        display_name(about)
        measured = about["rows"]["sha256"]
    except (KeyError, TypeError):
        raise CptBenchError("not the result of a harness", where=facts) from None
    if not rows.is_file() or digest(rows) != measured:
        raise CptBenchError(
            "the per-sample rows were changed or removed after they had been measured",
            where=rows,
            todo=f"Restore them, or delete {facts} to measure again",
        )
    found = read_jsonl(rows)
    scores = [row.get("score") if "id" in row else None for row in found]
    if not all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores):
        raise CptBenchError("a row has no id, or no score in [0, 1]", where=rows)
    return about, found


def found_in(folders: Iterable[Path]) -> list[dict[str, npt.NDArray[np.float64]]]:
    """Per-sample scores by benchmark in each stage's folder, for the paired general delta.

    The name contains the evaluator's version, so that two versions are never compared: a benchmark
    measured by different versions before and after has no delta.

    Raises:
        CptBenchError: The samples of a benchmark differ between stages.
    """
    stages = []
    asked: dict[str, list[Any]] = {}
    for folder in folders:
        stage = {}
        for facts in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            about, rows = read(facts)
            name = display_name(about)
            ids = [row["id"] for row in rows]
            if asked.setdefault(name, ids) != ids:
                raise CptBenchError(
                    f"{name} used other samples here than at an earlier stage", where=facts
                )
            stage[name] = np.array([row["score"] for row in rows], dtype=np.float64)
        stages.append(stage)
    return stages


def delta(folders: Sequence[Path], draws: int) -> dict[str, Any] | None:
    """GeneralDelta from other harnesses' results; None if there are none.

    Args:
        folders: Each stage's folder of measurements, the base model's first.
        draws: Number of bootstrap resamples for each interval.
    """
    stages = found_in(folders)
    if not any(stages):
        return None
    return general_delta(stages[0], stages[-1], draws)


def display_name(about: Mapping[str, Any]) -> str:
    """``lm-eval:mmlu_pro (lm-eval 0.4.13, task v1)``."""
    made = about["provenance"]
    tool = f"{made['evaluator']} {made['version']}"
    return f"{about['benchmark']} ({tool}, task v{made['task_version']})"


def evaluator(spec: Spec) -> Any:
    """The module that runs ``spec``, with ``installed() -> str`` and ``measure() -> Measured``."""
    return importlib.import_module(EVALUATORS[spec.evaluator])


def installed(spec: Spec) -> str:
    """The installation that would measure ``spec``, a version or a path, for the ledger's key.

    Raises:
        CptBenchError: The harness is not installed.
    """
    found: str = evaluator(spec).installed()
    return found
