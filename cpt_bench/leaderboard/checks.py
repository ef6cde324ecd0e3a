"""Compares what an entry states about itself with the suite and its own files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cpt_bench.files import digest_json
from cpt_bench.leaderboard.entry import SHA256, Entry, Manifest, ProtocolRef, SuiteRef
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.gold import BaseRow, Gold
from cpt_bench.leaderboard.names import check_names
from cpt_bench.leaderboard.recompute import stage_name, stages_of
from cpt_bench.leaderboard.rules import STRICT
from cpt_bench.leaderboard.strict import lines
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
    """Check that the entry's folder, and the folders above it in a board, have the right names."""
    named = {
        "the name": entry.name, "the base model": entry.model.name, "the trainer": entry.trainer
    }  # fmt: skip
    authors = {f"the author {i}": name for i, name in enumerate(entry.authors, 1)}
    check_names({**named, **authors}, "entry.yaml", report)
    name = entry.folder_name()
    if folder.name != name:
        report.error("folder-name", folder.name, f"the folder of this entry is called {name}")
    above = folder.resolve().parents
    if len(above) > 3 and (above[3] / "RULES.md").is_file():  # inside leaderboards/
        wanted = entry.place().parent.as_posix()
        found = above[0].relative_to(above[3]).as_posix()
        if found != wanted:
            report.error("place", folder.name, f"lies in {found}; it belongs in {wanted}")


def check_suite(entry: Entry, suite: Suite, report: Report) -> bool:
    """Check that the entry was made with exactly the suite that is installed here."""
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
    """Check that a seed's manifest agrees with its folder, ``entry.yaml`` and the suite."""
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
    stages = [stage_name(manifest.order, t) for t in stages_of(manifest.order, manifest.joint)]
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
    if entry.division in STRICT:
        report.error("base-model", "entry.yaml", what)
        report.claim("base model", entry.model.name, Status.refuted, what)
    else:
        report.note("base-model", "entry.yaml", what)
        report.claim("base model", entry.model.name, Status.self_reported, what)


# ------------------------------------------------------------------------- training questions


def check_extra_data(folder: Path, entry: Entry, gold: dict[str, Gold], report: Report) -> None:
    """Check that no extra training question is a test question of the suite."""
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
