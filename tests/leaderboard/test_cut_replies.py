"""What is not compared row by row: cut replies, KL, forced beginnings, repeated ids (issue 18, 29 and 31).

As in ``test_forgeries.py``, each forgery is caught by one finding.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.tables import ABRIDGED
from cpt_bench.leaderboard.verify import verify
from tests.support.entries.forge import (
    Case,
    Rows,
    change_answers,
    edit_ledger,
    pack_rows,
    refuted_by_one,
    table_of,
    write_reproduction,
)
from tests.support.entries.make import resign, rows

SCIENCE = "stage-2/evaluate/science"


def improve(now: Rows, suite: Path, name: str, most: int = 20) -> None:
    from cpt_bench.sources import load_split
    from cpt_bench.suite import load_suite

    gold = load_split(load_suite(suite).card(name), "test")
    wrong = [i for i, row in enumerate(now) if not row.get("score")][:most]
    for i in wrong:
        now[i]["reply"] = f"<answer>{gold[i].answers[0]}</answer>"


CUT = "<think>[500 characters]</think>"


def made_up_hash(entry: Path, suite: Path) -> None:
    """One row claims that its thought was cut; others of its table are better than they were."""

    def change(t: int, name: str, now: Rows) -> None:
        if (t, name) == (2, "science"):
            improve(now, suite, name)
            now[0]["reply"] = f"{CUT}<answer>zz1</answer>"
            now[0][ABRIDGED] = "f" * 64

    change_answers(entry / "seed-0", suite, change, ledger=False)


def made_up_everywhere(entry: Path, suite: Path) -> None:
    def change(t: int, name: str, now: Rows) -> None:
        if t == 3:
            improve(now, suite, name)
            for i, row in enumerate(now):
                row["reply"] = CUT + "<answer>" + row["reply"].partition("<answer>")[2]
                row[ABRIDGED] = hashlib.sha256(f"{name} {i}".encode()).hexdigest()

    change_answers(entry / "seed-0", suite, change, ledger=False)


def hash_without_a_cut(entry: Path, suite: Path) -> None:
    file = table_of(entry / "seed-0", 2, "science")
    now = rows(file)
    now[0][ABRIDGED] = "f" * 64
    pack_rows(file, now)
    resign(entry / "seed-0")


def hash_that_is_none(entry: Path, suite: Path) -> None:
    file = table_of(entry / "seed-0", 2, "science")
    now = rows(file)
    reply = f"{CUT}<answer>zz</answer>"
    now[0].update({"reply": reply, "extracted": "zz", "score": 0.0, "lenient": 0.0, ABRIDGED: "f"})
    pack_rows(file, now)
    resign(entry / "seed-0")


def record_of_another_cut(entry: Path, suite: Path) -> None:
    """With a record that fits the changed answers, but no predictions that the run wrote."""
    made_up_hash(entry, suite)
    from cpt_bench.leaderboard.tables import answers_digest

    answers = answers_digest(iter(rows(table_of(entry / "seed-0", 2, "science"))))

    def write(records: Rows) -> None:
        records.append(
            {"step": "stage-2/abridge/science", "key": "", "inputs": {"predictions": "e" * 64},
             "outputs": {}, "facts": {"answers": answers}, "seconds": 0.0}
        )  # fmt: skip

    edit_ledger(entry / "seed-0", write)


def kl_rows(ids: list[str]) -> list[dict[str, Any]]:
    return [
        {"name": "science", "id": i, "tokens": 4, "kl": 0.5, "entropy": 0.4, "base_entropy": 0.5}
        for i in ids
    ]


def unrecorded_kl(entry: Path, suite: Path) -> None:
    pack_rows(entry / "seed-0/kl/1-science.jsonl.zst", kl_rows(["science-test-00000"]))
    resign(entry / "seed-0")


def unrecorded_forced(entry: Path, suite: Path) -> None:
    row = rows(table_of(entry / "seed-0", 3, "science"))[0]
    pack_rows(entry / "seed-0/forced/direct/science.jsonl.zst", [row])
    resign(entry / "seed-0")


def stray_table(path: str) -> Case:
    def spoil(entry: Path, suite: Path) -> None:
        pack_rows(entry / "seed-0" / path, kl_rows(["a"]))
        resign(entry / "seed-0")

    return spoil


def repeated_kl(entry: Path, suite: Path) -> None:
    file = entry / "seed-0/kl/1-science.jsonl.zst"
    pack_rows(file, kl_rows(["science-test-00000", "science-test-00001", "science-test-00000"]))
    resign(entry / "seed-0")


def repeated_forced(entry: Path, suite: Path) -> None:
    found = rows(table_of(entry / "seed-0", 3, "science"))
    pack_rows(entry / "seed-0/forced/direct/science.jsonl.zst", [found[4], found[9], found[4]])
    resign(entry / "seed-0")


def cut_forced(entry: Path, suite: Path) -> None:
    row = rows(table_of(entry / "seed-0", 3, "science"))[0] | {ABRIDGED: "f" * 64}
    pack_rows(entry / "seed-0/forced/direct/science.jsonl.zst", [row])
    resign(entry / "seed-0")


CASES: dict[str, tuple[Case, str, str]] = {
    # a row that is not compared (row 31)
    "one made-up hash, other answers improved": (made_up_hash, "predictions-changed", f"{SCIENCE}: 1 of its replies are cut"),
    "made-up hashes in a whole stage": (made_up_everywhere, "predictions-changed", "stage-3/evaluate/text: 60 of its replies are cut"),
    "a hash on a reply that is whole": (hash_without_a_cut, "cut", "no thought that was cut"),
    "a hash that is none": (hash_that_is_none, "cut", "not a SHA-256"),
    "a cut of other predictions": (record_of_another_cut, "predictions-changed", f"{SCIENCE}: other predictions were cut"),
    "a cut reply among those with a forced beginning": (cut_forced, "cut", "only replies/"),
    "KL that no step measured": (unrecorded_kl, "unrecorded", "stages/1-science/kl.jsonl"),
    "forced replies that no step asked for": (unrecorded_forced, "unrecorded", "forced/direct/science"),
    "KL of a stage that is none": (stray_table("kl/9-science.jsonl.zst"), "unknown-file", "kl/9-science"),
    "forced replies of a beginning that is none": (stray_table("forced/more/science.jsonl.zst"), "unknown-file", "forced/more"),
    "whole replies of a cell that is none": (stray_table("replies/9-more/science.jsonl.zst"), "unknown-file", "replies/9-more"),
    # repeated ids (row 29)
    "a repeated id among KL rows": (repeated_kl, "duplicate-id", "line 3 is of 'science-test-00000' of science once more"),
    "a repeated id among forced replies": (repeated_forced, "duplicate-id", "answers 'science-test-00004' twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_finding_catches_it(name: str, good: tuple[Path, Path], entry: Path) -> None:
    refuted_by_one(CASES[name], entry, good[0])


def test_a_side_file_that_fits_its_table_and_not_the_run(
    good: tuple[Path, Path], entry: Path
) -> None:
    """Whole replies are put back into the table, which then is or is not what the run wrote."""
    made_up_hash(entry, good[0])
    seed = entry / "seed-0"
    whole = f"<think>{'x' * 500}</think><answer>zz1</answer>"
    file = table_of(seed, 2, "science")
    now = rows(file)
    now[0][ABRIDGED] = hashlib.sha256(whole.encode()).hexdigest()
    pack_rows(file, now)
    side = seed / "replies/2-counting/science.jsonl.zst"
    side.parent.mkdir(parents=True)
    line = json.dumps({"id": now[0]["id"], "reply": whole}) + "\n"
    zst(side, [line.encode()])
    resign(seed)
    lines = [f.line() for f in verify(entry, str(good[0])).report.errors]
    assert any(
        "replies/2-counting/science" in line and "is not what the run wrote" in line
        for line in lines
    ), lines
    zst(side, [line.encode() * 2])
    resign(seed)
    lines = [f.line() for f in verify(entry, str(good[0])).report.errors]
    assert any(
        f"duplicate-id: seed-0/replies/2-counting/science.jsonl.zst: has two replies to {now[0]['id']!r}"
        in line
        for line in lines
    ), lines


def test_a_repeated_id_in_a_reproduction_is_named(good: tuple[Path, Path], entry: Path) -> None:
    write_reproduction(entry, "B. Other", lambda new: new.append(new[3]))
    lines = [f.line() for f in verify(entry, str(good[0])).report.errors]
    assert any("duplicate-id" in line and "-test-00003' twice" in line for line in lines), lines
