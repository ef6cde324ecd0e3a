"""Verifies a stored run offline: grades its replies again, recomputes its matrix and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.grading import Grade, grade
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.gold import Gold, base_row, gold_of, open_known_suite
from cpt_bench.leaderboard.recompute import differences
from cpt_bench.leaderboard.verify import Verified
from cpt_bench.results.losses import prefixes
from cpt_bench.study.numbers import claims
from cpt_bench.study.stored import Row, Stored, read
from cpt_bench.suite import Suite

Seen = dict[tuple[str, int, str], Grade]
"""Grades by (benchmark, sample, reply): most replies also occur in another stage or run."""


def verify(file: Path, suite_spec: str | None = None, seen: Seen | None = None) -> Verified:
    """Verify everything in a stored run.

    Args:
        file: The stored run.
        suite_spec: A suite that does not ship with the package; never read from the file.
        seen: Grades to share between files.

    Raises:
        CptBenchError: There is no such file. Any problem inside the file is a finding instead.
    """
    if not file.is_file() or file.is_symlink():
        raise CptBenchError("no such file", where=file, todo="Give a stored run")
    report = Report(file.name)
    done = Verified(file, None, report, {})
    try:
        stored = read(file)
        wanted = stored.facts["suite"]
        suite = open_known_suite(wanted["name"], "", suite_spec)
        if suite.fingerprint() != wanted["fingerprint"]:
            raise Refused("suite-version", "was run with another version of the suite")
        if sorted(stored.order) != sorted(suite.sequence):
            raise Refused("order", "is not an order of the suite's tasks")
        suite = suite.reordered(stored.order)
        gold = _gold(suite)
        if isinstance(gold, str):
            report.note("gold-absent", suite.name, gold)
            report.claim(f"{stored.name}: matrix", None, Status.unverifiable, gold)
            return done._replace(suite=suite)
        _answers(stored, suite, gold, {} if seen is None else seen, report)
        _base(stored, suite, report)
        _claims(stored, suite, report)
    except Refused as error:
        report.refused(error, file.name)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        report.error("schema", file.name, f"is not a stored run ({type(error).__name__}: {line})")
    return done


def _gold(suite: Suite) -> dict[str, Gold] | str:
    out = {}
    for name in (*suite.sequence, *suite.general):
        found = gold_of(suite, name)
        if isinstance(found, str):
            return found
        out[name] = found
    return out


def _answers(
    stored: Stored, suite: Suite, gold: dict[str, Gold], seen: Seen, report: Report
) -> None:
    """Check that every cell is present, and that its grades are right for its replies."""
    wanted = {(t, name) for t in stored.rows() for name in suite.benchmarks_after(t)}
    for t, name in sorted(wanted - stored.answers.keys()):
        report.error("incomplete", stored.name, f"{name} after stage {t} has no answers")
    for t, name in sorted(stored.answers.keys() - wanted):
        report.error("unknown-cell", stored.name, f"{name!r} after stage {t} is not a cell")
    for (t, name), row in stored.answers.items():
        if (t, name) in wanted:
            where, at = f"{stored.name}: stage {t}, {name}", [*range(len(gold[name].samples))]
            _cell(where, row, suite, name, gold, at, seen, report)
    for (prefix, name), row in stored.forced.items():
        if prefix not in prefixes(suite.protocol) or name not in gold:
            report.error("unknown-cell", stored.name, f"{name!r} with a forced {prefix!r}")
            continue
        at = row["at"]
        if at != sorted({*at}) or any(not 0 <= i < len(gold[name].samples) for i in at):
            report.error("unknown-id", stored.name, f"{name}, forced {prefix}: not of the split")
            continue
        where = f"{stored.name}: {name}, forced {prefix}"
        _cell(where, row, suite, name, gold, at, seen, report)


def _cell(
    where: str, row: Row, suite: Suite, name: str, gold: dict[str, Gold], at: list[int], seen: Seen,
    report: Report,
) -> None:  # fmt: skip
    columns = ("replies", "tokens", "strict", "lenient", "form")
    lengths = {len(row[key]) for key in columns}
    if lengths != {len(at)}:
        report.error("missing-id", where, f"has {sorted(lengths)} answers to {len(at)} questions")
        return
    form, matcher = suite.protocol.form, matcher_of(suite.card(name))
    longest = suite.protocol.decoding.max_new_tokens + (64 if "at" in row else 0)
    for i, reply, tokens, *claimed in zip(at, *(row[key] for key in columns), strict=True):
        if type(reply) is not str or type(tokens) is not int or not 0 <= tokens <= longest:
            report.error("schema", f"{where}: {i}", "no text, or more tokens than are allowed")
            continue
        got = seen.get((name, i, reply))
        if got is None:
            got = seen[name, i, reply] = grade(reply, gold[name].samples[i], form, matcher)
        if claimed != [got.score, got.lenient, int(got.format_ok)]:
            what = f"claims {claimed}; the reply earns {[got.score, got.lenient, got.format_ok]}"
            report.error("grade", f"{where}: {gold[name].samples[i].id}", what)


def _base(stored: Stored, suite: Suite, report: Report) -> None:
    """Check that the base model's row is the published one, if the suite publishes it."""
    base = base_row(suite)
    if base is None or stored.facts["base"]["weights"] != base.weights:
        return
    for name, (accuracy, _) in base.scores.items():
        row = stored.answers.get((0, name))
        found = None if row is None else 100 * float(np.mean(row["strict"]))
        if found is not None and abs(found - accuracy) > 1e-5:
            what = f"the base model scores {found:.2f}, not the published {accuracy:.2f}"
            report.error("base-row", f"{stored.name}: {name}", what)


def _claims(stored: Stored, suite: Suite, report: Report) -> None:
    found = claims(stored, suite)
    cells = sum(len(row["strict"]) for row in stored.answers.values())
    for key in ("matrix", "general"):
        off = [*differences(stored.claims[key], found[key])]
        for one in off:
            what = f"{one.path}: claims {one.claimed}; recomputed {one.found}"
            report.error("matrix", f"{stored.name}: {key}", what)
        how = f"{len(stored.answers)} cells from {cells:,} replies"
        status = Status.refuted if off else Status.verified
        report.claim(f"{stored.name}: {key}", None, status, how)
    for key, value in stored.claims["numbers"].items():
        _number(stored, key, value, found["numbers"], report)


def _number(stored: Stored, key: str, value: Any, found: dict[str, Any], report: Report) -> None:
    if key not in found:
        how = "this package has no such number"
        report.claim(f"{stored.name}: {key}", value, Status.self_reported, how)
        return
    off = [*differences(value, found[key], key)]
    for one in off:
        what = f"claims {one.claimed}; recomputed {one.found}"
        report.error("metric", f"{stored.name}: {key}", what)
    if value is None and not off:
        return
    status, how = Status.verified, "recomputed from the replies"
    if key.startswith("KL_"):
        status, how = Status.self_reported, "from the run's own KL rows; checking takes the weights"
    report.claim(f"{stored.name}: {key}", value, Status.refuted if off else status, how)
