"""A run in one file: what the models answered and what it was worth, without weights.

::

    <name>.jsonl.zst     JSON Lines in one zstd frame
      {"kind": "run", …}                              what was run: settings, seed, order, versions
      {"kind": "answers", "stage": 0, "name": …}      replies and grades, in the test split's order
      {"kind": "forced", "prefix": …, "name": …}      what was lost, asked with a forced beginning
      {"kind": "kl", "stage": 1, "name": …}           KL to the base, one number a prompt
      {"kind": "training", "stage": 1, …}             means of the training figures over the steps
      {"kind": "claims", …}                           the matrix and the numbers made of it

A run of ``nano`` takes about 40 KB. ``cptbench verify`` grades the replies again and recomputes
every number; runs made before a measurement existed lack its lines, and are whole without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import graded
from cpt_bench.files import read_jsonl
from cpt_bench.leaderboard.entry import portable_origin
from cpt_bench.leaderboard.findings import Refused
from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.strict import lines, row_of
from cpt_bench.results.committed import records, refuse_altered
from cpt_bench.results.folder import RunFolder, is_joint
from cpt_bench.results.losses import prefixes
from cpt_bench.results.scoring import Outcomes, suite_of
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, Suite

FORMAT: Final = 1
ENDING: Final = ".jsonl.zst"
KINDS: Final = ("run", "answers", "forced", "kl", "training", "claims")

TRAINING: Final = (
    "loss", "grad_norm", "entropy", "reward", "reward_std", "frac_reward_zero_std", "accuracy",
    "format_ok", "mean_token_accuracy", "kl", "reward_variance", "completions/mean_length",
)  # fmt: skip
"""Figures of ``train.jsonl`` whose means are stored."""

Array = npt.NDArray[np.float64]
Row = dict[str, Any]


class Stored(NamedTuple):
    """A stored run, as it is in its file.

    Attributes:
        name: The file's name without its ending.
        facts: The line of kind ``run``.
        answers: (stage, benchmark) to its line.
        forced: (prefix, benchmark) to its line.
        kl: (stage, benchmark) to its line.
        training: Stage to its line.
        claims: The line of kind ``claims``.
    """

    name: str
    facts: Row
    answers: dict[tuple[int, str], Row]
    forced: dict[tuple[str, str], Row]
    kl: dict[tuple[int, str], Row]
    training: dict[int, Row]
    claims: Row

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.facts["order"])

    @property
    def joint(self) -> bool:
        return is_joint(self.facts)

    def rows(self) -> list[int]:
        """The rows of R that the run has by its nature."""
        last = len(self.order)
        return [0, last] if self.joint else [*range(last + 1)]

    def outcomes(self, name: str) -> Outcomes:
        """One benchmark's per-sample scores, as a run folder gives them."""
        mine = [row["strict"] for (_, other), row in self.answers.items() if other == name]
        if not mine:
            raise KeyError(f"answers of {name}")
        n = len(mine[0])
        table = np.full((4, len(self.order) + 1, n), np.nan)
        for t in range(len(self.order) + 1):
            if (t, name) in self.answers:
                row = self.answers[t, name]
                table[:3, t] = row["strict"], row["lenient"], row["form"]
                table[3, t] = [np.nan if v is None else v for v in row["tokens"]]
        found = {}
        for (prefix, other), row in self.forced.items():
            if other == name:
                found[prefix] = np.full(n, np.nan)
                found[prefix][row["at"]] = row["lenient"]
        return Outcomes(table[0], table[1], table[2], table[3], None, found or None)


# --------------------------------------------------------------------------------------- storing


def rows_of(folder: Path) -> list[Row]:
    """The lines of a finished run, its numbers computed anew.

    Raises:
        CptBenchError: The run is limited, unfinished or altered.
    """
    from cpt_bench.study.numbers import claims

    suite, run = suite_of(folder)
    if run.get("limit") is not None:
        raise CptBenchError(f"was limited to {run['limit']} samples a split", where=folder)
    paths = RunFolder(folder, suite.sequence)
    found = records(folder)
    if not found:
        todo = "The same `cptbench run` command finishes it"
        raise CptBenchError("not a finished run: it has no ledger", where=folder, todo=todo)
    refuse_altered(folder, found)
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
    """A test split, read once for all runs."""
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
    """Means over the stage's steps, five digits; and the course of the learning rate."""
    rows = read_jsonl(file)
    out: Row = {"kind": "training", "stage": t, "steps": len(rows), "figures": {}}
    for key in TRAINING:
        values = [row[key] for row in rows if isinstance(row.get(key), int | float)]
        if values:
            out["figures"][key] = float(f"{np.mean(values):.5g}")
    rates = [float(row["learning_rate"]) for row in rows if "learning_rate" in row]
    out["rate_squared"] = float(f"{np.sum(np.square(rates)):.5g}")
    return out


# --------------------------------------------------------------------------------------- reading


def read(file: Path) -> Stored:
    """Read a stored run, strictly.

    Raises:
        Refused: Not one; the error names the reason.
    """
    found = Stored(file.name.removesuffix(ENDING), {}, {}, {}, {}, {}, {})
    for number, line in enumerate(_lines(file), 1):
        try:
            _take(found, line)
        except KeyError as error:
            raise Refused("schema", f"line {number} has no {error}", where=file.name) from None
    if not found.facts or not found.claims:
        raise Refused("schema", "has no line of kind run, or none of kind claims", where=file.name)
    if found.facts.get("format") != FORMAT:
        what = f"has format {found.facts.get('format')!r}; this cptbench reads {FORMAT}"
        raise Refused("format", what, where=file.name)
    return found


def _lines(file: Path) -> Iterator[Row]:
    for line in lines(file):
        yield row_of(line)


def _take(found: Stored, row: Row) -> None:
    kind = row["kind"]
    if kind == "run":
        found.facts.update(row)
    elif kind == "answers":
        found.answers[row["stage"], row["name"]] = row
    elif kind == "forced":
        found.forced[row["prefix"], row["name"]] = row
    elif kind == "kl":
        found.kl[row["stage"], row["name"]] = row
    elif kind == "training":
        found.training[row["stage"]] = row
    elif kind == "claims":
        found.claims.update(row)
    else:
        raise Refused("schema", f"has a line of unknown kind {kind!r}")


def read_all(results: Path) -> list[Stored]:
    """All stored runs below a folder, by name."""
    return [read(file) for file in sorted(results.glob(f"**/*{ENDING}"))]


def stored_in(places: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The stored runs that are, or lie in, ``places``; and the places that hold something else."""
    files: list[Path] = []
    rest = []
    for place in places:
        inside = sorted(place.glob(f"*{ENDING}")) if place.is_dir() else []
        if place.name.endswith(ENDING) and not place.is_dir():
            files.append(place)
        elif inside:
            files += inside
        else:
            rest.append(place)
    return files, rest
