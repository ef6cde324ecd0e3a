"""Forgeries that fit together: answers, grades, matrix, metrics, ledger and manifest all agree.

Whoever tampers with an entry thoroughly leaves only what is implausible; that is what these are
for. :func:`refit` makes a seed's documents follow from its (changed) answers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
import zstandard

from cpt_bench.evaluation.predictions import graded
from cpt_bench.leaderboard.entry import read_entry, read_manifest
from cpt_bench.leaderboard.findings import Report
from cpt_bench.leaderboard.gold import gold_of
from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.recompute import expected_cells, score_seed, stage_name
from cpt_bench.leaderboard.tables import ABRIDGED, grade_table
from cpt_bench.run.ledger import step_key
from cpt_bench.suite import Suite, load_suite
from tests.support.entries.make import resign

Rows = list[dict[str, Any]]
Change = Callable[[int, str, Rows], Rows | None]
"""(stage, benchmark, rows) -> new rows, or None for the same list, changed in place."""


def rows(file: Path) -> Rows:
    text = zstandard.ZstdDecompressor().decompress(file.read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


def pack_rows(file: Path, new: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    zst(file, ((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in new))


def table_of(seed: Path, stage: int, name: str) -> Path:
    order = read_manifest(seed).order
    return seed / "predictions" / stage_name(order, stage) / f"{name}.jsonl.zst"


def change_answers(seed: Path, suite_folder: Path, change: Change, ledger: bool = True) -> None:
    """Change replies; all that is written beside them follows, but for the ledger if told so."""
    suite = load_suite(suite_folder)
    manifest = read_manifest(seed)
    for t, name in expected_cells(suite, manifest.order, manifest.joint):
        file = table_of(seed, t, name)
        old = rows(file)
        new = change(t, name, old)
        pack_rows(file, _graded(suite, name, old if new is None else new))
    refit(seed, suite, ledger)


def _graded(suite: Suite, name: str, new: Rows) -> Rows:
    gold = gold_of(suite, name)
    assert not isinstance(gold, str)
    kept = [{k: row[k] for k in ("id", "reply", "tokens")} for row in new]
    out = graded(kept, suite.card(name), list(gold.samples), suite.protocol)
    marks = [{ABRIDGED: row[ABRIDGED]} if ABRIDGED in row else {} for row in new]
    return [{**row, **mark} for row, mark in zip(out, marks, strict=True)]


def refit(seed: Path, suite: Suite, ledger: bool = True) -> None:
    """Matrix, metrics, the ledger's digests and the manifest, from the answers that are there."""
    manifest, tables, gold = read_manifest(seed), {}, {}
    for t, name in expected_cells(suite, manifest.order, manifest.joint):
        gold[name] = gold_of(suite, name)
        file, card = table_of(seed, t, name), suite.card(name)
        table = grade_table(file, name, card, gold[name], suite, manifest.lane, Report("forged"))
        assert table is not None
        tables[t, name] = table
    scores = score_seed(suite, manifest.order, tables, gold, joint=manifest.joint)
    assert scores is not None
    for name, value in (("matrix", scores.matrix_json()), ("metrics", scores.metrics)):
        text = json.dumps(value, indent=1, ensure_ascii=False)
        (seed / f"{name}.json").write_text(text + "\n")
    if ledger:

        def follow(records: Rows) -> None:
            for record in records:
                _, kind, *rest = record["step"].split("/")
                if kind == "evaluate":
                    t = int(record["step"].partition("/")[0].removeprefix("stage-"))
                    (path,) = record["outputs"]
                    record["outputs"][path] = tables[t, rest[0]].raw

        edit_ledger(seed, follow)
    resign(seed)


def edit_ledger(seed: Path, change: Callable[[Rows], Rows | None]) -> None:
    """Change the ledger's records; keys follow from inputs, and the manifest is signed anew."""
    file = seed / "ledger.jsonl.zst"
    records = rows(file)
    new = change(records)
    records = records if new is None else new
    for record in records:
        record["key"] = step_key(record["step"], record["inputs"])
    pack_rows(file, records)
    resign(seed)


def edit_json(file: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(file.read_text())
    new = change(value)
    text = json.dumps(value if new is None else new, indent=1, ensure_ascii=False)
    file.write_text(text + "\n")


def edit_entry(entry: Path, **changes: Any) -> None:
    file = entry / "entry.yaml"
    value = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def relabel(seed: Path, weights: dict[int, str]) -> None:
    """Other digests of weights for some stages, in the manifest and all through the ledger."""
    manifest = json.loads((seed / "manifest.json").read_text())
    names = {t: stage_name(tuple(manifest["order"]), t) for t in weights}
    new = {manifest["weights"][names[t]]: digest for t, digest in weights.items()}
    stages = {f"stage-{t}": digest for t, digest in weights.items()}
    manifest["weights"].update({names[t]: digest for t, digest in weights.items()})
    (seed / "manifest.json").write_text(json.dumps(manifest, indent=1))

    def follow(records: Rows) -> None:
        for record in records:
            mine = stages.get(record["step"].partition("/")[0])
            if mine is not None:
                record["facts"]["weights"] = mine
                if "weights" in record["inputs"]:
                    record["inputs"]["weights"] = mine
            parent = record["inputs"].get("parent")
            if parent is not None:
                record["inputs"]["parent"] = new.get(parent, parent)

    edit_ledger(seed, follow)


def fresh_weights(seed: int, stage: int) -> str:
    return hashlib.sha256(f"made up {seed} {stage}".encode()).hexdigest()


def clone(entry: Path, source: int, target: int, suite: Path, change: Change) -> None:
    """Seed ``target`` is seed ``source`` with other weights, and answers changed by ``change``."""
    place, kept = entry / f"seed-{target}", {}
    for name in ("manifest.json", "ledger.jsonl.zst", "environment.json", "recipe.json"):
        kept[name] = (place / name).read_bytes()
    shutil.rmtree(place)
    shutil.copytree(entry / f"seed-{source}", place)
    for name, data in kept.items():
        (place / name).write_bytes(data)
    change_answers(place, suite, change)


def copy_entry(entry: Path, **changes: Any) -> Path:
    """The entry once more on its board, under other words; in the folder where it belongs."""
    partial = entry.parent / "partial"
    shutil.copytree(entry, partial)
    edit_entry(partial, **changes)
    board = entry.parents[3]
    target = board / read_entry(partial).place()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(target)
    return target
