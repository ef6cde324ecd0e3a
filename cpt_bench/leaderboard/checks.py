"""What an entry says of itself, against the suite, its own files and its run's records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.files import digest_json
from cpt_bench.leaderboard.entry import (
    SHA256,
    Entry,
    Manifest,
    ProtocolRef,
    SuiteRef,
    portable_origin,
    read_entry,
)
from cpt_bench.leaderboard.extras import Extras, check_recorded
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.gold import BaseRow, Gold
from cpt_bench.leaderboard.recompute import Table, stage_name
from cpt_bench.leaderboard.strict import lines, read_json, row_of
from cpt_bench.run.ledger import step_key
from cpt_bench.run.plan import stage_seed
from cpt_bench.suite import Suite

_SHA = re.compile(SHA256)


def suite_ref(suite: Suite) -> SuiteRef:
    return SuiteRef(
        name=suite.name,
        version=suite.version,
        fingerprint=suite.fingerprint(),
        variant=suite.variant.tag,
    )


def protocol_ref(suite: Suite) -> ProtocolRef:
    protocol = suite.protocol
    return ProtocolRef(
        name=protocol.name,
        style=protocol.style,
        prompt=protocol.prompts[protocol.style],
        sha256=digest_json(protocol.model_dump(mode="json")),
    )


def data_refs(suite: Suite) -> dict[str, dict[str, Any]]:
    """Every benchmark of the suite with the digests of its card and splits."""
    out = {}
    for name in sorted((*suite.sequence, *suite.general)):
        card = suite.card(name)
        train = card.splits.get("train")
        out[name] = {
            "card": digest_json(card.model_dump(mode="json")),
            "n": card.splits["test"].n,
            "test": card.splits["test"].sha256,
            "train": train.sha256 if train else None,
        }
    return out


def unprepared(suite: Suite) -> list[str]:
    """Benchmarks whose data are not on this machine, so that their hashes are not known either."""
    return [
        name
        for name in (*suite.sequence, *suite.general)
        if any(not split.sha256 for split in suite.card(name).splits.values())
    ]


def check_place(entry: Entry, folder: Path, report: Report) -> None:
    """The folder's name, and the folders above it inside a board, say what the entry says."""
    name = entry.folder_name()
    if folder.name != name:
        report.error("folder-name", folder.name, f"the folder of this entry is called {name}")
    above = folder.resolve().parents
    if len(above) > 3 and (above[3] / "RULES.md").is_file():  # inside leaderboards/
        wanted = entry.place().parent.as_posix()
        found = above[0].relative_to(above[3]).as_posix()
        if found != wanted:
            report.error("place", folder.name, f"lies in {found}; it belongs in {wanted}")
        if entry.supersedes:
            _check_correction(entry, folder.parent / entry.supersedes, report)


def _check_correction(entry: Entry, old: Path, report: Report) -> None:
    """What an entry supersedes lies beside it and is of the same authors, or of some of them."""
    try:
        authors = read_entry(old).authors
    except (FileNotFoundError, Refused):
        what = f"supersedes {old.name}, which is no entry beside this one"
        report.error("supersedes", "entry.yaml", what)
        return
    if not entry.is_by(*authors):
        what = f"supersedes {old.name}, whose authors ({', '.join(authors)}) are others"
        report.error("supersedes", "entry.yaml", what)


def check_suite(entry: Entry, suite: Suite, report: Report) -> bool:
    """The entry was made with exactly the suite that is installed here."""
    if entry.suite.version != suite.version:
        what = f"is for {suite.name} {entry.suite.version}; installed is {suite.version}"
        report.error("suite-version", "entry.yaml", what)
        return False
    absent = unprepared(suite)
    if absent:
        what = f"the data of {', '.join(absent)} are not here (cptbench data prepare): not compared"
        report.note("suite-unprepared", "entry.yaml", what)
    elif entry.suite.fingerprint != suite.fingerprint():
        what = (
            f"is for a {suite.name} {suite.version} with the fingerprint "
            f"{entry.suite.fingerprint[:12]}…; installed is {suite.fingerprint()[:12]}…"
        )
        report.error("suite-fingerprint", "entry.yaml", what)
        return False
    return True


def check_manifest(
    folder: Path, manifest: Manifest, entry: Entry, suite: Suite, report: Report
) -> None:
    """A seed's manifest agrees with its folder, with ``entry.yaml`` and with the suite."""
    where = f"{folder.name}/manifest.json"

    def same(code: str, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            report.error(code, where, f"{what} is {found!r}, not {wanted!r}")

    same("seed-mismatch", "the seed", f"seed-{manifest.seed}", folder.name)
    same("suite-version", "the suite's version", manifest.suite.version, entry.suite.version)
    same("suite-name", "the suite", manifest.suite.name, entry.suite.name)
    same("suite-name", "the suite's variant", manifest.suite.variant, entry.suite.variant)
    fingerprint = manifest.suite.fingerprint
    same("suite-fingerprint", "the fingerprint", fingerprint, entry.suite.fingerprint)
    same("base-model", "the base weights' digest", manifest.base.weights, entry.model.weights)
    same("base-model", "the base model", manifest.base.name, entry.model.name)
    same("lane", "the lane", manifest.lane, entry.lane)
    same("trainer", "the trainer", manifest.trainer, entry.trainer)
    same("privilege", "privileges", manifest.privileges, entry.privileges)
    if sorted(manifest.order) != sorted(suite.sequence):
        report.error(
            "order", where, f"the order {list(manifest.order)} is not of the suite's tasks"
        )
    wanted_protocol = protocol_ref(suite)
    for field in ("name", "style", "prompt", "sha256"):
        code = "prompt" if field == "prompt" else "protocol"
        found, wanted = getattr(manifest.protocol, field), getattr(wanted_protocol, field)
        same(code, f"the protocol's {field}", found, wanted)
    wanted_data, absent = data_refs(suite), unprepared(suite)
    same("data", "the list of benchmarks", sorted(manifest.data), sorted(wanted_data))
    for name in sorted(set(manifest.data) & set(wanted_data)):
        for field, code in (
            ("n", "sample-count"),
            ("test", "data"),
            ("train", "data"),
            ("card", "data"),
        ):
            found, wanted = getattr(manifest.data[name], field), wanted_data[name][field]
            if field == "n" or name not in absent:
                same(code, f"{name}: {field}", found, wanted)
    for stage, digest in manifest.weights.items():
        if not _SHA.fullmatch(digest):
            report.error("schema", where, f"the weights of {stage} are not a SHA-256")
    stages = [stage_name(manifest.order, t) for t in range(len(manifest.order) + 1)]
    if manifest.weights and list(manifest.weights) != stages:
        report.error(
            "weights", where, f"lists weights of {list(manifest.weights)}, not of {stages}"
        )
    if manifest.weights and manifest.weights.get("0-base") != manifest.base.weights:
        report.error("base-model", where, "stage 0 has other weights than the base model")
    known = manifest.weights and manifest.base.weights
    if not known and manifest.lane in ("trainer", "checkpoints"):
        report.error("weights", where, f"lists no weights; the lane {manifest.lane!r} records them")


def check_base(entry: Entry, base: BaseRow | None, report: Report) -> None:
    """The base model is the suite's own, in the closed division at least."""
    if base is None:
        how = "the suite publishes no base row"
        report.claim("base model", entry.model.name, Status.unverifiable, how)
        return
    if entry.model.weights == base.weights:
        how = "the digest of the weights is the suite's"
        if entry.model.name != base.model:
            what = f"calls the suite's base model {entry.model.name!r}, not {base.model!r}"
            report.error("base-model", "entry.yaml", what)
        report.claim("base model", entry.model.name, Status.self_reported, how)
        return
    own = f"{entry.model.weights[:12]}…" if entry.model.weights else "not known"
    what = f"base weights {own}; the suite's are {base.weights[:12]}…"
    if entry.division == "closed":
        report.error("base-model", "entry.yaml", what)
        report.claim("base model", entry.model.name, Status.refuted, what)
    else:
        report.note("base-model", "entry.yaml", what)
        report.claim("base model", entry.model.name, Status.self_reported, what)


# --------------------------------------------------------------------------------- the ledger


class Steps(NamedTuple):
    """What a ledger file holds: step name to record."""

    records: dict[str, dict[str, Any]]


def read_ledger(file: Path) -> Steps:
    records: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines(file, 64 << 20), 1):
        try:
            record = row_of(line)
        except Refused as error:
            raise Refused(error.code, f"line {number} {error.what}") from None
        step = record.get("step")
        parts = record.get("inputs"), record.get("outputs") or {}, record.get("facts") or {}
        if not isinstance(step, str) or not all(isinstance(part, dict) for part in parts):
            raise Refused("schema", f"line {number} is not a step's record")
        if step in records:
            raise Refused("duplicate-id", f"has two records of {step!r}")
        records[step] = record
    return Steps(records)


def check_ledger(
    folder: Path,
    manifest: Manifest,
    tables: dict[tuple[int, str], Table],
    extras: Extras,
    report: Report,
) -> None:
    """The run's own records form one chain: stage after stage, each evaluated, nothing limited."""
    where = f"{folder.name}/ledger.jsonl.zst"
    file = folder / "ledger.jsonl.zst"
    if not file.is_file():
        if manifest.lane == "trainer":
            report.error("missing-file", where, "the trainer lane keeps the run's ledger")
        return
    try:
        records = read_ledger(file).records
    except Refused as error:
        report.error(error.code, where, error.what)
        return
    before = len(report.errors)
    for step, record in records.items():
        if record.get("key") != step_key(step, record["inputs"]):
            report.error("ledger-key", where, f"{step}: its key is not the hash of its inputs")
        if record["inputs"].get("limit") is not None:
            report.error(
                "limited", where, f"{step}: ran on {record['inputs']['limit']} samples only"
            )
    recipe = {"budget": {"samples": None}, **read_json(folder / "recipe.json")}
    if manifest.lane == "trainer":  # other lanes trained elsewhere: nothing recorded it
        _check_chain(manifest, recipe, records, where, report)
    _check_evaluations(manifest, recipe, records, tables, where, report)
    check_recorded(folder, records, extras, report)
    if len(report.errors) == before:
        how = "records and files form one chain; that training did what it says is not shown"
        name = f"{folder.name}: chain of checkpoints"
        report.claim(name, f"{len(records)} steps", Status.self_reported, how)


def _check_chain(
    manifest: Manifest, recipe: dict[str, Any], records: dict[str, Any], where: str, report: Report
) -> None:
    for t in range(1, len(manifest.order) + 1):
        step = f"stage-{t}/train"
        record = records.get(step)
        if record is None:
            report.error("ledger-step", where, f"has no record of {step}")
            continue
        inputs, facts = record["inputs"], record.get("facts") or {}
        parent = manifest.weights.get(stage_name(manifest.order, t - 1))
        own = manifest.weights.get(stage_name(manifest.order, t))
        if inputs.get("parent") != parent:
            report.error("chain", where, f"{step}: did not start from the weights of stage {t - 1}")
        if facts.get("weights") != own:
            report.error("chain", where, f"{step}: wrote other weights than the manifest lists")
        if inputs.get("seed") != stage_seed(manifest.seed, t):
            what = f"{step}: seed {inputs.get('seed')!r} is not stage {t}'s of seed {manifest.seed}"
            report.error("seed-mismatch", where, what)
        if inputs.get("config") != recipe.get("config"):
            report.error("recipe", where, f"{step}: ran with other settings than recipe.json")
        # A stage has one task, a joint one all of them; runs of before named the one apart.
        tasks = inputs.get("tasks")
        task = tasks[0] if isinstance(tasks, list) and len(tasks) == 1 else inputs.get("task")
        if not isinstance(task, dict) or task.get("name") != manifest.order[t - 1]:
            report.error(
                "order", where, f"{step}: trained another task than {manifest.order[t - 1]}"
            )
        elif (data := manifest.data.get(task["name"])) and data.card != digest_json(task):
            report.error("data", where, f"{step}: trained on another version of the task's card")
        ran = inputs.get("origin")
        if not isinstance(ran, dict) or portable_origin(ran) != recipe.get("origin"):
            report.error("recipe", where, f"{step}: ran other code than recipe.json says")
        if "tasks" not in inputs:
            continue  # runs of before recorded neither privileges nor a budget
        if inputs.get("privileges") != manifest.privileges:
            report.error("privilege", where, f"{step}: ran with other privileges than the manifest")
        for key in ("budget", "launch"):
            if inputs.get(key) != recipe.get(key):
                what = f"{step}: its {key} is {inputs.get(key)!r}, not {recipe.get(key)!r}"
                report.error("recipe", where, what)


def _check_evaluations(
    manifest: Manifest,
    recipe: dict[str, Any],
    records: dict[str, Any],
    tables: dict[tuple[int, str], Table],
    where: str,
    report: Report,
) -> None:
    for (t, name), table in tables.items():
        step = f"stage-{t}/evaluate/{name}"
        record = records.get(step)
        if record is None:
            report.error("ledger-step", where, f"has no record of {step}")
            continue
        stage = stage_name(manifest.order, t)
        if record["inputs"].get("weights") != manifest.weights.get(stage):
            report.error("chain", where, f"{step}: evaluated other weights than those of {stage}")
        protocol = record["inputs"].get("protocol")
        if protocol is not None and digest_json(protocol) != manifest.protocol.sha256:
            report.error("protocol", where, f"{step}: was asked under another protocol")
        if record["inputs"].get("engine_chosen") != recipe.get("engine"):
            report.error("recipe", where, f"{step}: another engine answered than recipe.json says")
        wrote = (record.get("outputs") or {}).get(f"stages/{stage}/predictions/{name}.jsonl")
        if wrote is None:
            report.error("ledger-step", where, f"{step}: does not say what it wrote")
        elif wrote != table.raw and not table.abridged:
            what = f"{step}: wrote predictions {str(wrote)[:12]}…; packed are {table.raw[:12]}…"
            report.error("predictions-changed", where, what)


# ------------------------------------------------------------------------- training questions


def check_extra_data(folder: Path, entry: Entry, gold: dict[str, Gold], report: Report) -> None:
    """No training question from elsewhere is a test question of the suite."""
    file, where = folder / "extra-data.txt.zst", f"{folder.name}/extra-data.txt.zst"
    name = f"{folder.name}: no test question among extra training data"
    if not file.is_file():
        if entry.extra_data:
            how = "no hashes of the training questions are given"
            report.claim(name, entry.extra_data, Status.unverifiable, how)
        return
    if not entry.extra_data:
        report.error("extra-data", where, "lists training data that entry.yaml does not speak of")
    tests = {mark: bench for bench, known in gold.items() for mark in known.hashes}
    count = 0
    try:
        for number, line in enumerate(lines(file, 128 << 20), 1):
            mark = line.decode("ascii", "replace")
            if not _SHA.fullmatch(mark):
                raise Refused("schema", f"line {number} is not a SHA-256")
            if mark in tests:
                what = f"line {number}: trained on a test question of {tests[mark]}"
                report.error("trained-on-test", where, what)
            count += 1
    except Refused as error:
        report.error(error.code, where, error.what)
        return
    how = "none of the hashes given is a test question's; that they are all is not shown"
    report.claim(name, f"{count} questions", Status.self_reported, how)
