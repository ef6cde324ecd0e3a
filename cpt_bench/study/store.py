"""Packs a finished run into one file; see :mod:`cpt_bench.study.stored` for its format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import graded
from cpt_bench.files import read_jsonl
from cpt_bench.leaderboard.entry import portable_origin
from cpt_bench.leaderboard.pack import zst
from cpt_bench.results.committed import records, refuse_altered
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.losses import prefixes
from cpt_bench.results.schema import read_run
from cpt_bench.results.suites import suite_of
from cpt_bench.sources import load_split
from cpt_bench.study.numbers import claims
from cpt_bench.study.stored import ENDING, FORMAT, Row, Stored
from cpt_bench.suite import Sample, Suite

TRAINING: Final = (
    "loss", "grad_norm", "entropy", "reward", "reward_std", "frac_reward_zero_std", "accuracy",
    "format_ok", "mean_token_accuracy", "kl", "reward_variance", "completions/mean_length",
)  # fmt: skip
"""Figures of ``train.jsonl`` whose means are stored."""


def rows_of(folder: Path) -> list[Row]:
    """The lines of a finished run, with its numbers computed again.

    Raises:
        CptBenchError: The run is limited, unfinished or altered.
    """
    suite, run = suite_of(folder)
    if run.get("limit") is not None:
        raise CptBenchError(f"was limited to {run['limit']} samples a split", where=folder)
    paths = RunFolder(folder, suite.sequence)
    found = records(folder)
    if not found:
        todo = "The same `cptbench run` command finishes it"
        raise CptBenchError("not a finished run: it has no ledger", where=folder, todo=todo)
    refuse_altered(folder, found)
    run = read_run(folder, needs=("base",))
    stored = Stored(folder.name, _facts(run, found), {}, {}, {}, {}, {})
    for t in stored.rows():
        for name in suite.benchmarks_after(t):
            stored.answers[t, name] = _answers(paths, suite, t, name)
    last = len(suite.sequence)
    for name in (*suite.sequence, *suite.general):
        for prefix in prefixes(suite.protocol):
            file = paths.forced(last, prefix, name)
            if file.is_file():
                stored.forced[prefix, name] = _forced(file, suite, prefix, name)
    for t in range(1, last + 1):
        if paths.divergence(t).is_file():
            stored.kl.update(_divergence(paths.divergence(t), t))
        if paths.train_log(t).is_file():
            stored.training[t] = _training(paths.train_log(t), t)
    numbers = {"kind": "claims", **claims(stored, suite)}
    parts = (stored.answers, stored.forced, stored.kl, stored.training)
    return [stored.facts, *(row for part in parts for row in part.values()), numbers]


def store(folder: Path, results: Path) -> Path:
    """Write a finished run's file into ``results``; the same run gives the same bytes."""
    target = results / f"{folder.name}{ENDING}"
    rows = rows_of(folder)
    results.mkdir(parents=True, exist_ok=True)
    text = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    zst(target, (f"{line}\n".encode() for line in text))
    return target


def _facts(run: Row, committed: list[Row]) -> Row:
    stored = ("suite", "trainer", "config", "privileges", "budget", "lane", "seed", "order",
            "threads", "base", "versions", "git", "engine")  # fmt: skip
    facts = {key: run[key] for key in stored if key in run}
    facts["suite"] = {key: run["suite"][key] for key in ("name", "version", "fingerprint")}
    facts["base"] = {"weights": run["base"]["weights"]}
    hardware = run.get("hardware") or {}
    trained = {r["step"]: r for r in committed if r["step"].endswith("/train")}
    return {
        "kind": "run",
        "format": FORMAT,
        **facts,
        "origin": portable_origin(run.get("origin") or {}),
        "hardware": {key: hardware.get(key) for key in ("cpu", "cores", "gpus")},
        "weights": {step.partition("/")[0]: r["facts"]["weights"] for step, r in trained.items()},
        "train_seconds": round(sum(float(r["seconds"]) for r in trained.values()), 1),
    }


def _answers(paths: RunFolder, suite: Suite, t: int, name: str) -> Row:
    file = paths.predictions(t, name)
    if not file.is_file():
        raise CptBenchError(
            f"is not finished: {name} was not evaluated after stage {t}",
            where=paths.root,
            todo="The same `cptbench run` command finishes it",
        )
    found = graded(read_jsonl(file), suite.card(name), _split(suite, name), suite.protocol)
    return {"kind": "answers", "stage": t, "name": name, **_columns(found)}


def _columns(rows: Sequence[Row]) -> Row:
    return {
        "replies": [row["reply"] for row in rows],
        "tokens": [row["tokens"] for row in rows],
        "strict": [_short(row["score"]) for row in rows],
        "lenient": [_short(row["lenient"]) for row in rows],
        "form": [int(row["format_ok"]) for row in rows],
    }


def _short(score: float) -> float | int:
    return int(score) if score == int(score) else score


_splits: dict[tuple[str, str], list[Sample]] = {}


def _split(suite: Suite, name: str) -> list[Sample]:
    """A test split, read only once for all runs."""
    key = suite.fingerprint(), name
    if key not in _splits:
        _splits[key] = load_split(suite.card(name), "test")
    return _splits[key]


def _forced(file: Path, suite: Suite, prefix: str, name: str) -> Row:
    rows, samples = read_jsonl(file), _split(suite, name)
    asked = {row["id"] for row in rows}
    at = [i for i, sample in enumerate(samples) if sample.id in asked]
    found = graded(rows, suite.card(name), [samples[i] for i in at], suite.protocol)
    return {"kind": "forced", "prefix": prefix, "name": name, "at": at, **_columns(found)}


def _divergence(file: Path, t: int) -> Iterator[tuple[tuple[int, str], Row]]:
    by_name: dict[str, list[Row]] = {}
    for row in read_jsonl(file):
        by_name.setdefault(row["name"], []).append(row)
    for name, rows in by_name.items():
        columns = {key: [row[key] for row in rows] for key in ("kl", "entropy", "base_entropy")}
        yield (t, name), {"kind": "kl", "stage": t, "name": name, **columns}


def _training(file: Path, t: int) -> Row:
    """Means over the stage's steps, with five digits, and the learning-rate schedule."""
    rows = read_jsonl(file)
    out: Row = {"kind": "training", "stage": t, "steps": len(rows), "figures": {}}
    for key in TRAINING:
        values = [row[key] for row in rows if isinstance(row.get(key), int | float)]
        if values:
            out["figures"][key] = float(f"{np.mean(values):.5g}")
    rates = [float(row["learning_rate"]) for row in rows if "learning_rate" in row]
    out["rate_squared"] = float(f"{np.sum(np.square(rates)):.5g}")
    return out
