"""A seed's files besides its predictions: replies with a forced beginning, and KL to the base."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.grading import grade
from cpt_bench.leaderboard.entry import Manifest
from cpt_bench.leaderboard.findings import Refused, Report
from cpt_bench.leaderboard.gold import Gold
from cpt_bench.leaderboard.recompute import stage_name, stages_of
from cpt_bench.leaderboard.strict import lines, row_of
from cpt_bench.leaderboard.tables import ABRIDGED, check_grades, check_row
from cpt_bench.results.losses import prefixes
from cpt_bench.suite import Suite

Array = npt.NDArray[np.float64]
Divergence = dict[int, dict[str, list[dict[str, Any]]]]

KL_NUMBERS = ("kl", "entropy", "base_entropy")


class Extras(NamedTuple):
    """What was read of them.

    Attributes:
        forced: Benchmark to prefix to best-reading scores, NaN where not asked; shape (n,).
        divergence: Stage to benchmark to rows of KL.
        raw: Path in the run folder to SHA-256 of the unpacked bytes.
    """

    forced: dict[str, dict[str, Array]]
    divergence: Divergence
    raw: dict[str, str]


def forced_path(prefix: str, name: str) -> str:
    return f"forced/{prefix}/{name}.jsonl.zst"


def kl_path(order: tuple[str, ...], stage: int) -> str:
    return f"kl/{stage_name(order, stage)}.jsonl.zst"


def read_extras(
    folder: Path, manifest: Manifest, suite: Suite, gold: dict[str, Gold], report: Report
) -> Extras:
    """Read what there is; a broken file is a finding and is left out."""
    out = Extras({}, {}, {})
    order, last = manifest.order, len(manifest.order)
    for prefix in prefixes(suite.protocol):
        for name in (*order, *suite.general):
            path = forced_path(prefix, name)
            if not (folder / path).is_file() or name not in gold:
                continue
            try:
                where, known = f"{folder.name}/{path}", gold[name]
                lane = manifest.lane
                scores, raw = _forced(folder / path, where, suite, name, known, lane, report)
            except Refused as error:
                report.error(error.code, f"{folder.name}/{path}", error.what)
                continue
            out.forced.setdefault(name, {})[prefix] = scores
            stage = stage_name(order, last)
            out.raw[f"stages/{stage}/forced/{prefix}/{name}.jsonl"] = raw
    for t in stages_of(order, manifest.joint)[1:]:
        path = kl_path(order, t)
        if not (folder / path).is_file():
            continue
        try:
            rows, raw = _kl(folder / path, {*order, *suite.general})
        except Refused as error:
            report.error(error.code, f"{folder.name}/{path}", error.what)
            continue
        out.divergence[t] = rows
        out.raw[f"stages/{stage_name(order, t)}/kl.jsonl"] = raw
    known_paths = {
        forced_path(prefix, name)
        for prefix in prefixes(suite.protocol)
        for name in (*order, *suite.general)
    } | {kl_path(order, t) for t in stages_of(order, manifest.joint)[1:]}
    for kind in ("forced", "kl"):
        for file in sorted((folder / kind).rglob("*.zst")):
            path = file.relative_to(folder).as_posix()
            if path not in known_paths:
                report.error("unknown-file", f"{folder.name}/{path}", "is of no stage or benchmark")
    return out


def _forced(
    file: Path, where: str, suite: Suite, name: str, gold: Gold, lane: str, report: Report
) -> tuple[Array, str]:
    """Replies to some samples, in the split's order, graded in their best reading."""
    matcher, form = matcher_of(suite.card(name)), suite.protocol.form
    position = {s.id: i for i, s in enumerate(gold.samples)}
    scores, raw, before = np.full(len(position), np.nan), hashlib.sha256(), -1
    for number, line in enumerate(lines(file, digest=raw)):
        try:
            row = row_of(line)
            # The forced beginning comes on top of what the protocol allows.
            check_row(row, lane, suite.protocol.decoding.max_new_tokens + 64)
            if ABRIDGED in row:
                raise Refused("cut", "has a reply that is cut; only replies/ has side files")
        except Refused as error:
            raise Refused(error.code, f"line {number + 1} {error.what}") from None
        at = position.get(row["id"])
        if at is None:
            raise Refused("unknown-id", f"{row['id']!r} is not in the test split")
        if not np.isnan(scores[at]):
            raise Refused("duplicate-id", f"answers {row['id']!r} twice")
        if at <= before:
            raise Refused("id-order", f"{row['id']!r} is not where the published order has it")
        before = at
        got = grade(row["reply"], gold.samples[at], form, matcher)
        check_grades(row, got, where, number, report)
        scores[at] = got.lenient
    return scores, raw.hexdigest()


def _kl(file: Path, known: set[str]) -> tuple[dict[str, list[dict[str, Any]]], str]:
    rows: dict[str, list[dict[str, Any]]] = {}
    raw, seen = hashlib.sha256(), set[tuple[str, str]]()
    for number, line in enumerate(lines(file, digest=raw), 1):
        row = row_of(line)
        if not isinstance(row.get("name"), str) or row["name"] not in known:
            raise Refused("schema", f"line {number} is of no benchmark of the suite")
        for key in KL_NUMBERS:
            value = row.get(key)
            if not isinstance(value, int | float) or isinstance(value, bool) or value < -1e-6:
                raise Refused(
                    "schema", f"line {number} has {key} {value!r}, not a number from 0 on"
                )
        at = row["name"], str(row.get("id"))
        if at in seen:
            raise Refused("duplicate-id", f"line {number} is of {at[1]!r} of {at[0]} once more")
        seen.add(at)
        rows.setdefault(row["name"], []).append(row)
    return rows, raw.hexdigest()


def check_recorded(
    folder: Path, records: dict[str, dict[str, Any]], extras: Extras, report: Report
) -> None:
    """Check that exactly the measurements in the ledger are here, unchanged."""
    recorded = set[str]()
    for step, record in records.items():
        if not (step.endswith("/kl") or "/diagnose/" in step):
            continue
        for path, digest in record["outputs"].items():
            found = extras.raw.get(path)
            recorded.add(path)
            if found is None:
                report.error("incomplete", folder.name, f"{step} wrote {path}, which is not packed")
            elif found != digest:
                what = f"{step}: wrote {str(digest)[:12]}…; packed is {found[:12]}…"
                report.error("predictions-changed", f"{folder.name}/{path}", what)
    for path in sorted(extras.raw.keys() - recorded):
        what = "was written by no step of the ledger"
        report.error("unrecorded", f"{folder.name}/{path}", what)
