"""Compares a seed's claims with what was recomputed: matrix, metrics, their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.recompute import Difference, Seed, differences
from cpt_bench.leaderboard.strict import read_json


def check_claims(folder: Path, seed: Seed, absent: str, report: Report) -> None:
    """Compare matrix and metrics as claimed with matrix and metrics as recomputed."""
    claimed: dict[str, Any] = {}
    for name in ("matrix.json", "metrics.json"):
        try:
            claimed[name] = read_json(folder / name)
        except FileNotFoundError:
            return
        except Refused as error:
            report.error(error.code, f"{folder.name}/{name}", error.what)
            return
        if not isinstance(claimed[name], dict):
            report.error("schema", f"{folder.name}/{name}", "is not a mapping of keys to values")
            return
    label = f"{folder.name}: "
    if seed.scores is None:
        why = absent or "a table of answers is missing or broken"
        status = Status.unverifiable if absent else Status.refuted
        report.claim(f"{label}matrix", None, status, why)
        for key, passport in claimed["metrics.json"].items():
            report.claim(label + key, _value(passport), status, why)
        return
    matrix = claimed["matrix.json"]
    recomputed = seed.scores.matrix_json()
    # Newer packages state more; what every version states must be there.
    later = recomputed.keys() - matrix.keys() - {"tasks", "accuracy", "n", "general"}
    off = [*differences(matrix, {k: v for k, v in recomputed.items() if k not in later})]
    for one in off:
        where = f"{folder.name}/matrix.json"
        report.error("matrix", where, f"{one.path}: claims {one.claimed}; recomputed {one.found}")
    n = sum(len(t.marks) for t in seed.tables.values())
    how = f"{len(seed.tables)} cells from {n:,} predictions"
    report.claim(f"{label}matrix", None, Status.refuted if off else Status.verified, how)
    other_numpy = _numpy(folder) != np.__version__
    for key, passport in claimed["metrics.json"].items():
        found = seed.scores.metrics.get(key)
        if found is None:
            how = "this package has no such metric"
            report.claim(label + key, _value(passport), Status.self_reported, how)
            continue
        if _value(passport) is not None or found["value"] is not None:
            _metric(folder, key, passport, found, other_numpy, report)
    if unstated := sorted(seed.scores.metrics.keys() - claimed["metrics.json"].keys()):
        what = f"does not state {', '.join(unstated)}"
        report.note("metric-absent", f"{folder.name}/metrics.json", what)


def _metric(
    folder: Path, key: str, passport: Any, found: Any, other_numpy: bool, report: Report
) -> None:
    off = [*differences(passport, found, key)]
    absent_keys = [one for one in off if one.claimed is None and one.found is not None]
    if isinstance(passport, dict) and passport.get("value") == found.get("value"):
        # A passport may have gained keys since; its numbers are what is claimed.
        off = [one for one in off if one not in absent_keys]
    if off and other_numpy and all(".interval." in one.path and _near(one) for one in off):
        how = "value recomputed; its interval was drawn by another version of numpy"
        report.claim(f"{folder.name}: {key}", _value(passport), Status.verified, how)
        return
    if off and all(".interval." in one.path for one in off):
        methods = [_method(passport), _method(found)]
        if isinstance(methods[0], str) and methods[0] != methods[1]:  # of another version
            what = f"{key}: its interval is by {methods[0][:90]!r}, not by today's method"
            report.note("interval-method", f"{folder.name}/metrics.json", what)
            how = "value recomputed; its interval was made by another method and is not compared"
            report.claim(f"{folder.name}: {key}", _value(passport), Status.verified, how)
            return
    for one in off:
        what = f"{one.path}: claims {one.claimed}; recomputed {one.found}"
        report.error("metric", f"{folder.name}/metrics.json", what)
    status = Status.refuted if off else Status.verified
    how = "recomputed from the predictions"
    if key.startswith("KL_") and not off and _value(passport) is not None:
        status, how = Status.self_reported, "from the run's own KL rows; checking takes the weights"
    report.claim(f"{folder.name}: {key}", _value(passport), status, how)


def _method(passport: Any) -> Any:
    """How a passport's interval was made, or None."""
    interval = passport.get("interval") if isinstance(passport, dict) else None
    return interval.get("method") if isinstance(interval, dict) else None


def _near(one: Difference) -> bool:
    """Two draws of one bootstrap interval: its ends move by a small part of a percentage point."""
    pair = one.claimed, one.found
    return all(isinstance(v, int | float) for v in pair) and abs(pair[0] - pair[1]) <= 0.3


def _numpy(folder: Path) -> str:
    try:
        return str(read_json(folder / "environment.json")["versions"]["numpy"])
    except (OSError, Refused, KeyError, TypeError):
        return ""


def _value(passport: Any) -> Any:
    return passport.get("value") if isinstance(passport, dict) else None
