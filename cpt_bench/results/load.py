"""Reads finished and unfinished runs for comparisons and reports; without torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest_json, read_jsonl
from cpt_bench.results.committed import records
from cpt_bench.results.folder import RunFolder, is_joint
from cpt_bench.results.scoring import Scores, score
from cpt_bench.results.suites import suite_of
from cpt_bench.suite import Sample, Suite

NAME_LENGTH = 80
"""Names come from plug-ins and settings; longer ones are shortened."""


class Run(NamedTuple):
    """One run, scored again from its predictions.

    Attributes:
        folder: The run folder.
        suite: Its suite, in the run's task order.
        record: ``run.json``.
        scores: Matrix, outcomes, metrics.
        splits: Benchmark to its test split, shared by all runs that are read together.
    """

    folder: Path
    suite: Suite
    record: dict[str, Any]
    scores: Scores
    splits: dict[str, list[Sample]]

    @property
    def paths(self) -> RunFolder:
        return RunFolder(self.folder, self.suite.sequence)

    @property
    def seed(self) -> int | None:
        return self.record.get("seed")

    @property
    def joint(self) -> bool:
        return is_joint(self.record)

    def settings(self) -> dict[str, Any]:
        """What identifies its method: everything about the run except seed and order."""
        origin = {k: v for k, v in (self.record.get("origin") or {}).items() if k != "cptbench"}
        keys = ("lane", "trainer", "config", "privileges", "budget", "limit")
        chosen = {"engine": self.record["engine"]} if "engine" in self.record else {}
        return {
            **{k: self.record.get(k) for k in keys},
            # What it is, not what it is called or where it was found.
            "base": {k: v for k, v in self._base.items() if k not in ("path", "revision")},
            "origin": origin,
            **chosen,
        }

    @property
    def _base(self) -> dict[str, Any]:
        return dict(self.record.get("base") or {})

    @property
    def start(self) -> str:
        """The digest of the weights it started from; for a server, what it served."""
        return str(self._base.get("weights"))

    @property
    def base(self) -> str:
        """What the model that it started from is called, and the beginning of its digest."""
        named, weights = str(self._base.get("path") or "base"), self.start
        if re.fullmatch(r"[0-9a-f]{64}", weights) is None:
            return named
        return f"{named.rpartition('/')[2] or named} {weights[:8]}"


class Method(NamedTuple):
    """Runs that differ only in their seed.

    Attributes:
        name: The trainer's name, with the settings in which it differs from the others here, and
            the order's letter if there are several orders.
        kind: The same without the order.
        order: The task order.
        runs: One run per seed, sorted by seed.
    """

    name: str
    kind: str
    order: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def joint(self) -> bool:
        return self.runs[0].joint

    @property
    def start(self) -> str:
        """The digest of the weights that its runs started from."""
        return self.runs[0].start


def folders_of(places: Iterable[Path]) -> list[Path]:
    """For each place: itself if it is a run folder, else the run folders in it.

    Raises:
        CptBenchError: There are none; the error names what the folder is instead, if known.
    """
    return [folder for place in places for folder in _folders_in(place)]


def _folders_in(given: Path) -> list[Path]:
    if (given / "run.json").is_file():
        return [given]
    inside = sorted(file.parent for file in given.glob("*/run.json"))
    if inside:
        return inside
    todo = ""
    if given.name.endswith(".jsonl.zst") or any(given.glob("*.jsonl.zst")):
        todo = "Stored runs are read by `cptbench verify`, and shown by `cptbench study build`"
    elif (given / "entry.yaml").is_file():
        todo = "An entry is read by `cptbench verify`, and shown by `cptbench leaderboard build`"
    raise CptBenchError("neither a run folder nor a folder of runs", where=given, todo=todo)


def load(folders: Sequence[Path]) -> list[Run]:
    """Read and score runs of one suite.

    Raises:
        CptBenchError: A folder is not a run; the runs are not of one suite version or size; or two
            are the same method, order and seed.
    """
    runs: list[Run] = []
    splits: dict[str, dict[str, list[Sample]]] = {}
    for folder in dict.fromkeys(f.resolve() for f in folders):
        if not (folder / "run.json").is_file():
            raise CptBenchError("not a run folder (no run.json)", where=folder)
        suite, record = suite_of(folder)
        shared = splits.setdefault(record["suite"]["fingerprint"], {})
        runs.append(Run(folder, suite, record, score(folder, shared), shared))
    for run in runs[1:]:
        for what, mine, first in (
            ("suite version", *(r.record["suite"]["fingerprint"][:12] for r in (run, runs[0]))),
            ("--limit", *(r.record.get("limit") for r in (run, runs[0]))),
        ):
            if mine != first:
                raise CptBenchError(
                    f"has another {what} than {runs[0].folder.name} ({mine!r}, not {first!r})",
                    where=run.folder,
                    todo="Only runs on the same test samples can be compared",
                )
    return runs


def methods(runs: Sequence[Run]) -> list[Method]:
    """Group runs by method and order, in the order given.

    Raises:
        CptBenchError: Two runs are the same method, order and seed.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Run]] = {}
    for run in runs:
        groups.setdefault((digest_json(run.settings()), run.suite.sequence), []).append(run)
    kinds = {key: rs[0] for (key, _), rs in reversed(groups.items())}
    found = [*kinds.values()]
    named = name_methods([run.settings() for run in found], [run.base for run in found])
    names = dict(zip(kinds, named, strict=True))
    orders = list(dict.fromkeys(order for _, order in groups))
    out = []
    for (key, order), members in groups.items():
        seeds = [run.seed for run in members]
        twice = next((s for s in seeds if seeds.count(s) > 1), None)
        if len(set(seeds)) < len(seeds):
            same = " and ".join(r.folder.name for r in members if r.seed == twice)
            raise CptBenchError(f"{same} are the same method, order and seed", todo="Give one")
        letter = f", order {chr(65 + orders.index(order) % 26)}" if len(orders) > 1 else ""
        ordered = tuple(sorted(members, key=lambda r: -1 if r.seed is None else r.seed))
        out.append(Method(names[key] + letter, names[key], order, ordered))
    return out


def name_methods(settings: Sequence[dict[str, Any]], bases: Sequence[str] = ()) -> list[str]:
    """A name for each method: its trainer's, and how it differs from others of that trainer.

    Args:
        settings: What identifies each method.
        bases: What the model is called that each started from; it is in the name where methods
            started from different models.
    """
    out, apart = [], any(s.get("base") != settings[0].get("base") for s in settings)
    for i, mine in enumerate(settings):
        trainer = str(mine.get("trainer") or mine.get("lane") or "run")
        flat = _flat({k: v for k, v in mine.items() if k != "base"})
        rivals = [_flat(s) for s in settings if s is not mine and s["trainer"] == mine["trainer"]]
        differing = [k for k in flat if any(r.get(k) != flat[k] for r in rivals)]
        # A digest of the code explains less than any setting does.
        shown = [k for k in differing if k.startswith("config.")] or ([] if apart else differing)
        parts = [f"{k.rpartition('.')[2]}={flat[k]}" for k in shown]
        tail = ", ".join([*([f"from {bases[i]}"] if apart and bases else []), *parts])
        name = f"{trainer} ({tail})" if tail else trainer
        out.append(name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…")
    for i, name in enumerate(out):
        if out.count(name) > 1:
            out[i] = f"{name[: NAME_LENGTH - 4]} #{out[:i].count(name) + 1}"
    return out


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.rstrip("."): value}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        out |= _flat(inner, f"{prefix}{key}.")
    return out


def costs(run: Run) -> dict[str, Any]:
    """The cost of a run, from its ledger and logs; None for what was not recorded.

    Returns:
        Seconds by purpose (a stage copied from another run counts as if done here), training
        tokens (prompts included, as TRL counts them), tokens generated in evaluation, peak
        resident memory of training in MiB, the device, and the wall time of the run's sessions.
    """
    committed = records(run.folder)
    trained = [r for r in committed if r["step"].endswith("/train")]

    def seconds(*parts: str) -> float | None:
        found = [float(r["seconds"]) for r in committed if any(p in r["step"] for p in parts)]
        return round(sum(found), 1) if found else None

    lengths = [o.tokens for o in run.scores.outcomes.values() if o.tokens is not None]
    whole = sum(float(np.nansum(x)) for x in lengths)
    memory = [r["facts"].get("peak_memory_mib") for r in trained]
    sessions = [s["wall_seconds"] for s in run.record.get("sessions", ())]
    gpus = (run.record.get("hardware") or {}).get("gpus") or []
    return {
        "device": gpus[0] if gpus else (run.record.get("hardware") or {}).get("cpu"),
        "wall_seconds": round(sum(sessions), 1) if sessions else None,
        "train_seconds": seconds("/train"),
        "rollout_seconds": round(sum(r["facts"].get("generation_seconds", 0) for r in trained), 1),
        "gpu_seconds": _sum(r["facts"].get("gpu_seconds") for r in trained),
        "evaluate_seconds": seconds("/evaluate/"),
        "diagnose_seconds": seconds("/diagnose/", "/kl"),
        "trained_tokens": _trained_tokens(run),
        "evaluation_tokens": int(whole) if lengths else None,
        "peak_memory_mib": max((m for m in memory if m is not None), default=None),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    if not known or any(v is None for v in known):
        return None
    return round(sum(v for v in known if v is not None), 1)


def train_logs(run: Run) -> dict[int, list[dict[str, Any]]]:
    """Stage to its training figures, one row per step."""
    files = {t: run.paths.train_log(t) for t in range(1, len(run.suite.sequence) + 1)}
    return {t: read_jsonl(file) for t, file in files.items() if file.exists()}


def _trained_tokens(run: Run) -> int | None:
    ends = [rows[-1].get("num_tokens") for rows in train_logs(run).values() if rows]
    known = [int(n) for n in ends if n is not None]
    return sum(known) if known and len(known) == len(ends) else None
