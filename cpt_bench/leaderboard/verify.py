"""Verify an entry: every number recomputed from its predictions, offline, nothing executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpt_bench.errors import CptBenchError
from cpt_bench.grading import Grade
from cpt_bench.leaderboard import checks, checks_files
from cpt_bench.leaderboard.entry import Entry, Manifest, read_entry, read_manifest
from cpt_bench.leaderboard.extras import Extras, read_extras
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.gold import BaseRow, Gold, base_row, gold_of, open_known_suite
from cpt_bench.leaderboard.plausibility import check_plausible
from cpt_bench.leaderboard.recompute import (
    Difference,
    Seed,
    Table,
    check_replies,
    differences,
    expected_cells,
    grade_table,
    response_style,
    score_seed,
    stage_name,
)
from cpt_bench.leaderboard.reproductions import Reproduction, read_reproduction
from cpt_bench.leaderboard.rules import LATEST, RULES, check_rules
from cpt_bench.leaderboard.strict import read_json
from cpt_bench.suite import Suite


class Verified(NamedTuple):
    """An entry that was looked at.

    Attributes:
        folder: Of the entry.
        entry: What ``entry.yaml`` says; None when it cannot be read.
        report: Findings and claims.
        seeds: What was recomputed.
        reproductions: Reruns by others, read back.
        suite: The suite it was held against.
    """

    folder: Path
    entry: Entry | None
    report: Report
    seeds: dict[int, Seed]
    reproductions: tuple[Reproduction, ...] = ()
    suite: Suite | None = None


def verify(
    folder: Path, suite_spec: str | None = None, tell: Callable[[str], None] = lambda line: None
) -> Verified:
    """Look at everything in an entry's folder.

    Args:
        folder: The entry.
        suite_spec: A suite that does not ship with the package; never taken from the entry.
        tell: Receives a word about what is being done.

    Raises:
        CptBenchError: There is no such folder. All that is wrong inside it is a finding.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise CptBenchError("no such folder", where=folder, todo="Give an entry's folder")
    folder = Path(folder.absolute())
    report = Report(folder.name)
    done = Verified(folder, None, report, {})
    if not checks_files.check_tree(folder, RULES[LATEST], report):
        return done
    try:
        entry = read_entry(folder)
    except FileNotFoundError:
        report.error("missing-file", "entry.yaml", "is not here")
        return done
    except Refused as error:
        report.refused(error, "entry.yaml")
        return done
    done = done._replace(entry=entry)
    checks.check_place(entry, folder, report)
    try:
        suite = open_known_suite(entry.suite.name, entry.suite.variant, suite_spec)
    except CptBenchError as error:
        code = error.code if isinstance(error, Refused) else "suite-unknown"
        report.error(code, "entry.yaml", error.what)
        return done
    same_suite = checks.check_suite(entry, suite, report)
    manifests = _manifests(folder, entry, suite, report)
    check_rules(entry, manifests, suite, report)
    if not same_suite:
        return done
    return _recompute(done._replace(suite=suite), entry, manifests, suite, tell)


def _manifests(folder: Path, entry: Entry, suite: Suite, report: Report) -> dict[int, Manifest]:
    found = {}
    seen: set[int] = set()
    for place in checks_files.seed_folders(folder):
        try:
            manifest = read_manifest(place)
        except FileNotFoundError:
            report.error("missing-file", f"{place.name}/manifest.json", "is not here")
            continue
        except Refused as error:
            report.refused(error, f"{place.name}/manifest.json")
            continue
        checks_files.check_manifest_files(place, manifest, report)
        checks.check_manifest(place, manifest, entry, suite, report)
        if manifest.seed in seen:
            what = f"a second run with seed {manifest.seed}"
            report.error("seed-repeated", f"{place.name}/manifest.json", what)
        seen.add(manifest.seed)
        found[int(place.name.partition("-")[2])] = manifest
    listed = sorted(entry.seeds)
    if len(set(listed)) != len(listed):
        report.error("seed-repeated", "entry.yaml", f"lists a seed twice: {listed}")
    folders = sorted(int(p.name.partition("-")[2]) for p in checks_files.seed_folders(folder))
    if sorted(set(listed)) != folders:
        report.error("seeds", "entry.yaml", f"lists seeds {listed}; the folders are {folders}")
    return found


def _recompute(
    done: Verified,
    entry: Entry,
    manifests: dict[int, Manifest],
    suite: Suite,
    tell: Callable[[str], None],
) -> Verified:
    report, base = done.report, base_row(suite)
    gold, absent = _gold(suite, report)
    _facts(entry, report)
    checks.check_base(entry, base, report)
    seeds: dict[int, Seed] = {}
    memory: dict[str, dict[tuple[int, str], Grade]] = {}
    for number, manifest in manifests.items():
        tell(f"seed {number}")
        folder, seeds[number] = done.folder / f"seed-{number}", Seed(manifest, {}, None)
        try:
            seeds[number] = _seed(
                done.folder, number, manifest, suite, gold, absent, memory, report
            )
            checks.check_extra_data(folder, entry, gold, report)
        except (KeyError, TypeError, AttributeError) as error:  # a shape that no reader foresaw
            what = f"cannot be checked ({type(error).__name__}: {error})"
            report.error("schema", folder.name, what)
    _style(entry, seeds, report)
    own_base = _own_base(entry, base)
    check_plausible(suite, seeds, base, own_base, report)
    reproductions = []
    place = done.folder / "reproductions"
    for child in sorted(place.iterdir()) if place.is_dir() else ():
        if child.is_dir() and not absent:
            read = read_reproduction(child, entry, seeds, suite, gold, report)
            reproductions += [read] if read else []
    return done._replace(seeds=seeds, reproductions=tuple(reproductions))


def _own_base(entry: Entry, base: BaseRow | None) -> bool:
    return base is None or entry.division == "closed" or entry.model.weights == base.weights


def _gold(suite: Suite, report: Report) -> tuple[dict[str, Gold], str]:
    gold, why = {}, ""
    for name in (*suite.sequence, *suite.general):
        found = gold_of(suite, name)
        if isinstance(found, str):
            why = why or found
            report.note("gold-absent", suite.name, found)
        else:
            gold[name] = found
    return gold, why


def _facts(entry: Entry, report: Report) -> None:
    """What an entry says of itself and nobody can compute."""
    report.claim("method", entry.name, Status.self_reported, "in the authors' words")
    report.claim("authors", ", ".join(entry.authors), Status.self_reported, "as given")
    how = "declared by the trainer"
    if entry.lane == "trainer":
        how += "; the package gives a trainer nothing beyond it"
    used = {k: v for k, v in entry.privileges.items() if v}
    report.claim("privileges", used or "none", Status.self_reported, how)
    report.claim(
        "lane", entry.lane, Status.self_reported, "what of the run is cptbench's own doing"
    )


def _seed(
    root: Path,
    number: int,
    manifest: Manifest,
    suite: Suite,
    gold: dict[str, Gold],
    absent: str,
    memory: dict[str, dict[tuple[int, str], Grade]],
    report: Report,
) -> Seed:
    folder, tables = root / f"seed-{number}", dict[tuple[int, str], Table]()
    if sorted(manifest.order) != sorted(suite.sequence):
        return Seed(manifest, tables, None)
    for t, name in expected_cells(suite, manifest.order):
        stage = stage_name(manifest.order, t)
        where = f"{folder.name}/predictions/{stage}/{name}.jsonl.zst"
        file = root / where
        if not file.is_file():
            report.error("incomplete", where, f"is not here: {name} after stage {t} has no answers")
            continue
        if name not in gold:
            continue
        card, known, lane = suite.card(name), gold[name], manifest.lane
        seen = memory.setdefault(name, {})
        table = grade_table(file, where, card, known, suite, lane, report, seen)
        if table is not None:
            tables[t, name] = table
            side = folder / "replies" / stage / f"{name}.jsonl.zst"
            if side.is_file():
                check_replies(
                    side, file, suite.protocol.form, f"{folder.name}/replies/{stage}", report
                )
    for place in sorted((folder / "predictions").glob("*/*.jsonl.zst")):
        cell = f"{place.parent.name}/{place.name.removesuffix('.jsonl.zst')}"
        cells = expected_cells(suite, manifest.order)
        if cell not in {f"{stage_name(manifest.order, t)}/{n}" for t, n in cells}:
            report.error(
                "unknown-file", f"{folder.name}/predictions/{cell}", "is no cell of the suite"
            )
    extras = read_extras(folder, manifest, suite, gold, report)
    _documents(folder, manifest, tables, extras, report)
    scores = None
    if not absent:
        more = extras.forced, extras.divergence
        scores = score_seed(suite, manifest.order, tables, gold, *more)
    seed = Seed(manifest, tables, scores)
    _claims(folder, seed, absent, report)
    return seed


def _documents(
    folder: Path,
    manifest: Manifest,
    tables: dict[tuple[int, str], Table],
    extras: Extras,
    report: Report,
) -> None:
    """The seed's JSON documents are sound; the ledger is one chain."""
    whole = True
    for name in ("environment.json", "recipe.json"):
        try:
            if not isinstance(read_json(folder / name), dict):
                raise Refused("schema", "is not a mapping of keys to values")
        except FileNotFoundError:
            whole = False  # named already
        except Refused as error:
            whole = False
            report.error(error.code, f"{folder.name}/{name}", error.what)
    if whole:
        checks.check_ledger(folder, manifest, tables, extras, report)
        how = "as the run recorded it"
        report.claim(f"{folder.name}: environment and cost", None, Status.self_reported, how)


def _claims(folder: Path, seed: Seed, absent: str, report: Report) -> None:
    """Matrix and metrics as claimed against matrix and metrics as recomputed."""
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
    for key in seed.scores.metrics.keys() - claimed["metrics.json"].keys():
        report.note("metric-absent", f"{folder.name}/metrics.json", f"does not state {key}")


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


def _style(entry: Entry, seeds: dict[int, Seed], report: Report) -> None:
    last = [
        table
        for seed in seeds.values()
        for (t, _), table in seed.tables.items()
        if t == len(seed.manifest.order)
    ]
    if not last:
        how = "no replies could be read"
        report.claim("response style", entry.response_style, Status.unverifiable, how)
        return
    found = response_style(sum(t.thinking for t in last), sum(len(t.marks) for t in last))
    fine = found == entry.response_style or entry.rules == "0"
    if not fine:
        what = f"says the final model answers {entry.response_style!r}; its replies are {found!r}"
        report.error("response-style", "entry.yaml", what)
    status = Status.verified if fine else Status.refuted
    how = f"of the final replies: {found}"
    report.claim("response style", entry.response_style, status, how)
