"""Verifies an entry offline: recomputes every number from its predictions, executes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.grading import Grade
from cpt_bench.leaderboard import checks, checks_files, checks_ledger
from cpt_bench.leaderboard.board import as_neighbour, neighbours
from cpt_bench.leaderboard.checks_ledger import Ledger
from cpt_bench.leaderboard.claims import check_claims
from cpt_bench.leaderboard.copies import check_copies
from cpt_bench.leaderboard.corrections import check_correction, check_look
from cpt_bench.leaderboard.entry import Entry, Manifest, read_entry, read_manifest
from cpt_bench.leaderboard.extras import Extras, read_extras
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.gold import BaseRow, Gold, base_row, gold_of, open_known_suite
from cpt_bench.leaderboard.plausibility import check_plausible
from cpt_bench.leaderboard.recompute import Seed, expected_cells, score_seed, stage_name
from cpt_bench.leaderboard.reproductions import Reproduction, read_reproduction
from cpt_bench.leaderboard.rules import LATEST, RULES, STRICT, check_rules
from cpt_bench.leaderboard.strict import read_json
from cpt_bench.leaderboard.tables import Table, check_replies, grade_table, response_style
from cpt_bench.suite import Suite


class Verified(NamedTuple):
    """An entry that was verified.

    Attributes:
        folder: The entry's folder.
        entry: The content of ``entry.yaml``; None when it cannot be read.
        report: Findings and claims.
        seeds: What was recomputed.
        reproductions: Reproductions by others, checked.
        suite: The suite it was compared with.
    """

    folder: Path
    entry: Entry | None
    report: Report
    seeds: dict[int, Seed]
    reproductions: tuple[Reproduction, ...] = ()
    suite: Suite | None = None


def verify(
    folder: Path,
    suite_spec: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
    boards: Sequence[Path] = (),
) -> Verified:
    """Check everything in an entry's folder, and whether it copies one of its neighbours.

    Args:
        folder: The entry.
        suite_spec: A suite that does not ship with the package; never taken from the entry.
        tell: Receives a word about what is being done.
        boards: Boards of published entries, which it may not copy, besides the one it lies on.

    Raises:
        CptBenchError: There is no such folder. All that is wrong inside it is a finding.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise CptBenchError("no such folder", where=folder, todo="Give an entry's folder")
    folder = Path(folder.absolute())
    done = _look(folder, suite_spec, tell)
    if done.entry is None:
        return done
    published = [board.absolute() for board in boards]
    me = as_neighbour(folder, done.entry, published)
    others = neighbours(folder, done.entry, published)
    on_board = len(folder.parents) > 3 and (folder.parents[3] / "RULES.md").is_file()
    check_correction(me, others, on_board, done.report)
    check_look(me, others, done.report)
    if done.suite is not None:
        seen: dict[Path, dict[int, Seed]] = {}

        def seeds_of(other: Path) -> dict[int, Seed]:
            if other not in seen:
                seen[other] = _look(other, suite_spec, tell).seeds
            return seen[other]

        check_copies(me, done.seeds, others, done.suite, seeds_of, done.report)
    return done


def _look(folder: Path, suite_spec: str | None, tell: Callable[[str], None]) -> Verified:
    """Check an entry by itself."""
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
    check_rules(entry, folder, manifests, suite, report)
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
    return base is None or entry.division in STRICT or entry.model.weights == base.weights


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
    """Claims of an entry that cannot be recomputed."""
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
    ledger = checks_ledger.open_ledger(folder, manifest, report)
    for t, name in expected_cells(suite, manifest.order, manifest.joint):
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
                raw = _wrote(ledger, t, stage, name)
                label = f"{folder.name}/replies/{stage}/{name}.jsonl.zst"
                check_replies(side, file, raw, suite.protocol.form, label, report)
    cells = expected_cells(suite, manifest.order, manifest.joint)
    known_cells = {f"{stage_name(manifest.order, t)}/{n}" for t, n in cells}
    for kind in ("predictions", "replies"):
        for place in sorted((folder / kind).glob("*/*.jsonl.zst")):
            cell = f"{place.parent.name}/{place.name.removesuffix('.jsonl.zst')}"
            if cell not in known_cells:
                where = f"{folder.name}/{kind}/{cell}"
                report.error("unknown-file", where, "is not a cell of the suite")
    extras = read_extras(folder, manifest, suite, gold, report)
    _documents(folder, manifest, suite, ledger, tables, extras, report)
    scores = None
    if not absent:
        more = extras.forced, extras.divergence
        scores = score_seed(suite, manifest.order, tables, gold, *more, joint=manifest.joint)
    seed = Seed(manifest, tables, scores, ledger.records if ledger else {})
    check_claims(folder, seed, absent, report)
    return seed


def _wrote(ledger: Ledger | None, t: int, stage: str, name: str) -> str | None:
    """The digest of what the run wrote for a cell, if its ledger has it."""
    record = ledger.records.get(f"stage-{t}/evaluate/{name}") if ledger else None
    found = (record or {"outputs": {}})["outputs"].get(f"stages/{stage}/predictions/{name}.jsonl")
    return None if found is None else str(found)


def _documents(
    folder: Path,
    manifest: Manifest,
    suite: Suite,
    ledger: Ledger | None,
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
        if ledger is not None:
            checks_ledger.check_ledger(folder, manifest, suite, ledger, tables, extras, report)
        how = "as the run recorded it"
        report.claim(f"{folder.name}: environment and cost", None, Status.self_reported, how)


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
        what = f"states that the final model answers {entry.response_style!r}; it answers {found!r}"
        report.error("response-style", "entry.yaml", what)
    status = Status.verified if fine else Status.refuted
    how = f"of the final replies: {found}"
    report.claim("response style", entry.response_style, status, how)
