"""Forgeries in which everything fits together: each is caught by one finding, which names it.

What is changed here was changed thoroughly: answers, grades, matrix, metrics, ledger and manifest
agree (``tests/entries/forge.py``). So each row stands for one check alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpt_bench.leaderboard.findings import Level
from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.tables import ABRIDGED
from cpt_bench.leaderboard.verify import verify
from tests.support.entries.forge import (
    Rows,
    change_answers,
    clone,
    edit_entry,
    edit_json,
    edit_ledger,
    fresh_weights,
    pack_rows,
    relabel,
    rows,
    table_of,
)
from tests.support.entries.make import BASE, TASKS, make_entry, resign

Case = Callable[[Path, Path], Any]
"""(entry, suite) -> spoilt."""


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Intervals from 200 resamples: these tests are about what is caught, not about widths."""
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(suite, entry), not to be changed."""
    return make_entry(tmp_path_factory.mktemp("good"))


@pytest.fixture
def entry(good: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy to spoil, in a board of its own."""
    board = tmp_path / "leaderboards"
    inside = good[1].relative_to(good[1].parents[3])
    shutil.copytree(good[1], board / inside)
    (board / "RULES.md").write_text("rules\n")
    return board / inside


# ------------------------------------------------------------------------------------ near-clones


def one_a_file(t: int, name: str, now: Rows) -> None:
    if t:
        now[3]["reply"] = "<answer>qq</answer>"


def other_thoughts(t: int, name: str, now: Rows) -> None:
    """Every reply is another text; every answer is the same."""
    for i, row in enumerate(now if t else []):
        answer = row["reply"].partition("<answer>")[2]
        row["reply"] = f"<think> well, {i + t}</think><answer>{answer}"


def other_spelling(t: int, name: str, now: Rows) -> None:
    for row in now if t else []:
        row["reply"] = (
            row["reply"]
            .replace("<answer>", "<answer> ")
            .upper()
            .replace("ANSWER", "answer")
            .replace("THINK", "think")
        )


def another_one(t: int, name: str, now: Rows) -> None:
    if t:
        now[t]["reply"] = f"<answer>q{t}</answer>"


def only_stages(*stages: int) -> Case:
    """Seed 1 is seed 0 in some stages, and itself in the others."""

    def spoil(entry: Path, suite: Path) -> None:
        own = {
            (t, name): rows(table_of(entry / "seed-1", t, name))
            for t in {1, 2, 3} - {*stages}
            for name in (*TASKS, "knowledge")
        }
        clone(entry, 0, 1, suite, lambda t, name, now: own.get((t, name)))

    return spoil


def all_one_run(entry: Path, suite: Path) -> None:
    for target, change in ((1, one_a_file), (2, another_one)):
        clone(entry, 0, target, suite, change)


def same_records(path: str) -> Case:
    """Two seeds' ledgers say that one stage wrote the same file."""

    def spoil(entry: Path, suite: Path) -> None:
        for seed in (0, 1):

            def write(records: Rows) -> None:
                for record in records:
                    if record["step"] == "stage-2/train":
                        record["outputs"][path] = "c" * 64

            edit_ledger(entry / f"seed-{seed}", write)

    return spoil


def same_times(entry: Path, suite: Path) -> None:
    for seed in (0, 1):

        def write(records: Rows) -> None:
            for i, record in enumerate(records):
                record["seconds"] = 10 + i * 1.001

        edit_ledger(entry / f"seed-{seed}", write)


# ----------------------------------------------------------------------------- cut replies, ledger


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


# --------------------------------------------------------------------------------------- weights


def weights_of(*pairs: tuple[int, str]) -> Case:
    def spoil(entry: Path, suite: Path) -> None:
        relabel(entry / "seed-0", dict(pairs))

    return spoil


def all_base_everywhere(entry: Path, suite: Path) -> None:
    for seed in range(3):
        relabel(entry / f"seed-{seed}", dict.fromkeys((1, 2, 3), BASE))


# ---------------------------------------------------------------------------------- ledger steps


def ledger(change: Callable[[dict[str, Any]], Any], step: str) -> Case:
    """Change one record; its key follows."""

    def spoil(entry: Path, suite: Path) -> None:
        def edit(records: Rows) -> None:
            (record,) = [r for r in records if r["step"] == step]
            change(record)

        edit_ledger(entry / "seed-0", edit)

    return spoil


def cut_input(key: str, step: str = "stage-2/evaluate/science") -> Case:
    return ledger(lambda record: record["inputs"].pop(key), step)


def extra_step(step: str, like: str) -> Case:
    def spoil(entry: Path, suite: Path) -> None:
        def edit(records: Rows) -> None:
            (record,) = [r for r in records if r["step"] == like]
            records.append({**record, "step": step})

        edit_ledger(entry / "seed-0", edit)

    return spoil


def other_card(record: dict[str, Any], suite: Path, name: str) -> None:
    from cpt_bench.suite import load_suite

    record["inputs"]["card"] = load_suite(suite).card(name).model_dump(mode="json")


def as_before(record: dict[str, Any]) -> None:
    """The shape of ledgers from before privileges and budgets were recorded."""
    inputs = record["inputs"]
    inputs["task"] = inputs.pop("tasks")[0]
    for key in ("index", "privileges", "budget"):
        del inputs[key]


def format_1(entry: Path, suite: Path) -> None:
    """The words of ``entry.yaml`` in the oldest format, which asked for neither rules nor style."""
    data = yaml.safe_load((entry / "entry.yaml").read_text())
    suite_, model = data.pop("suite"), data.pop("model")
    for key in ("rules", "response_style"):
        del data[key]
    data |= {
        "format": 1, "suite": suite_["name"], "suite_version": suite_["version"],
        "suite_fingerprint": suite_["fingerprint"], "base_model": model["name"],
        "base_weights": model["weights"], "method": data.pop("name"),
    }  # fmt: skip
    (entry / "entry.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def moved(**changes: Any) -> Case:
    """Other words in ``entry.yaml``, in the folder where they belong."""

    def spoil(entry: Path, suite: Path) -> Path:
        from cpt_bench.leaderboard.entry import read_entry

        edit_entry(entry, **changes)
        target = entry.parents[3] / read_entry(entry).place()
        target.parent.mkdir(parents=True, exist_ok=True)
        return entry.rename(target)

    return spoil


def named_model(name: str) -> Case:
    def spoil(entry: Path, suite: Path) -> Any:
        for seed in range(3):
            edit_json(entry / f"seed-{seed}/manifest.json", lambda m: m["base"].update(name=name))
        model = yaml.safe_load((entry / "entry.yaml").read_text())["model"]
        return moved(model={**model, "name": name})(entry, suite)

    return spoil


SCIENCE = "stage-2/evaluate/science"
CASES: dict[str, tuple[Case, str, str]] = {
    # seeds that are one run (issue 18, row 30)
    "seed 1 is seed 0 with one reply changed a file": (lambda e, s: clone(e, 0, 1, s, one_a_file), "seed-identical", "12 of "),
    "seed 1 is seed 0 with every thought rewritten": (lambda e, s: clone(e, 0, 1, s, other_thoughts), "seed-identical", "seed-0, seed-1"),
    "seed 1 is seed 0 in another case and spacing": (lambda e, s: clone(e, 0, 1, s, other_spelling), "seed-identical", "seed-0, seed-1"),
    "seed 2 is seed 1 with another reply changed in each": (lambda e, s: clone(e, 1, 2, s, another_one), "seed-identical", "seed-1, seed-2"),
    "seed 1 is seed 0 but for one stage": (only_stages(1, 3), "seed-alike", "of the entry's other pairs"),
    "seed 1 is seed 0 in the last stage": (only_stages(3), "seed-alike", "contested answers of stage 3 differ"),
    "three seeds are one run": (all_one_run, "seed-identical", "seed-0, seed-2"),
    "two seeds wrote the same checkpoint": (same_records("stages/2-counting/checkpoint"), "seed-same-weights", "stage-2/train: both wrote the same"),
    "two seeds wrote the same log": (same_records("stages/2-counting/train.jsonl"), "seed-same-weights", "train.jsonl"),
    "two seeds took the same time, step by step": (same_times, "seed-same-times", "to the millisecond"),
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
    # weights that cannot be (row 32)
    "every stage has the base's weights": (weights_of((1, BASE), (2, BASE), (3, BASE)), "same-weights", "0-base and 3-text list the same weights"),
    "every stage of every seed has the base's weights": (all_base_everywhere, "same-weights", "seed-2/manifest.json"),
    "one stage has the base's weights": (weights_of((2, BASE)), "same-weights", "0-base and 2-counting"),
    "two stages have one set of weights": (weights_of((1, "b" * 64), (3, "b" * 64)), "same-weights", "1-science and 3-text"),
    "a stage has another seed's weights": (lambda e, s: relabel(e / "seed-0", {2: json.loads((e / "seed-1/manifest.json").read_text())["weights"]["2-counting"]}), "seed-same-weights", "seed-0, seed-1"),
    # old rules (row 34)
    "the draft's rules, for a false style": (moved(rules="0", response_style="thinking"), "rules-version|response-style", "names the rules '0'"),
    "the first board's rules": (moved(rules="1"), "rules-version", "held to '2'"),
    "the oldest format": (format_1, "rules-version|response-style", "names the rules '0'"),
    "a ledger in the shape of before": (ledger(as_before, "stage-2/train"), "privilege|ledger-inputs|recipe|order", "does not say which privileges"),
    # names and dates (row 35)
    "a date in 2099": (moved(date="2099-01-01"), "date", "2099-01-01, a day that has not come"),
    "a date before the first board": (moved(date="2020-01-01"), "date", "before 2026-11-22"),
    "a day that no month has": (lambda e, s: edit_entry(e, date="2026-02-30"), "schema", "date"),
    "a Cyrillic letter in the name": (moved(name="SF\u0422, small"), "look-alike", "U+0422"),
    "a word of Cyrillic look-alikes": (moved(name="SFT, \u0430\u0441\u0435"), "look-alike", "U+0430"),
    "a letter of another width in the name": (moved(name="\uff33FT, small"), "look-alike", "FULLWIDTH"),
    "a no-break space in the name": (moved(name="SFT,\u00a0small"), "look-alike", "NO-BREAK SPACE"),
    "a space at the end of the name": (moved(name="SFT, small "), "look-alike", "begins or ends with a space"),
    "a Greek letter in an author": (lambda e, s: edit_entry(e, authors=["A. Uth\u03bfr"]), "look-alike", "the author 1"),
    "a base model that looks like the suite's": (named_model("sm\u0430ll-base"), "look-alike|base-model", "U+0430"),
    "an entry that supersedes itself": (lambda e, s: edit_entry(e, supersedes=e.name), "supersedes", "supersedes itself"),
    # what a ledger leaves out or adds (row 35)
    "no protocol in an evaluation": (cut_input("protocol"), "ledger-inputs", f"{SCIENCE}: does not say protocol"),
    "no protocol in a training": (cut_input("protocol", "stage-1/train"), "ledger-inputs", "stage-1/train: does not say protocol"),
    "no card in an evaluation": (cut_input("card"), "ledger-inputs", f"{SCIENCE}: does not say card"),
    "no limit in an evaluation": (cut_input("limit"), "ledger-inputs", "does not say limit"),
    "no engine in an evaluation": (cut_input("engine"), "ledger-inputs", "does not say engine"),
    "no versions in a training": (cut_input("versions", "stage-1/train"), "ledger-inputs", "versions"),
    "no index in a training": (cut_input("index", "stage-1/train"), "ledger-inputs", "index"),
    "another protocol in a training": (ledger(lambda r: r["inputs"]["protocol"]["decoding"].update(max_new_tokens=9), "stage-1/train"), "protocol", "stage-1/train"),
    "another task's card in an evaluation": (lambda e, s: ledger(lambda r: other_card(r, s, "text"), SCIENCE)(e, s), "data", f"{SCIENCE}: was asked with another card"),
    "an older card in an evaluation": (ledger(lambda r: r["inputs"]["card"].update(version=7), SCIENCE), "data", "another card than science's"),
    "another stage's index": (ledger(lambda r: r["inputs"].update(index=3), "stage-2/train"), "chain", "stage-2/train: was stage 3"),
    "weights of another stage in an evaluation's facts": (ledger(lambda r: r["facts"].update(weights=fresh_weights(9, 9)), SCIENCE), "chain", SCIENCE),
    "other packages in one step": (ledger(lambda r: r["inputs"].update(versions={"torch": "9"}), SCIENCE), "environment", SCIENCE),
    "an extra stage-2b/train": (extra_step("stage-2b/train", "stage-2/train"), "ledger-step", "'stage-2b/train', which is no step"),
    "a stage too many": (extra_step("stage-4/train", "stage-3/train"), "ledger-step", "'stage-4/train'"),
    "a training of the base": (extra_step("stage-0/train", "stage-1/train"), "ledger-step", "'stage-0/train'"),
    "an evaluation of what is no benchmark": (extra_step("stage-2/evaluate/more", SCIENCE), "ledger-step", "'stage-2/evaluate/more'"),
    "a step of no kind": (extra_step("stage-2/tune", "stage-2/train"), "ledger-step", "'stage-2/tune'"),
}  # fmt: skip

ALSO = {"KL of a stage that is none": set(), "a ledger in the shape of before": set()}


@pytest.mark.parametrize("name", CASES)
def test_one_finding_catches_it(name: str, good: tuple[Path, Path], entry: Path) -> None:
    spoil, codes, words = CASES[name]
    moved_to = spoil(entry, good[0])
    report = verify(moved_to if isinstance(moved_to, Path) else entry, str(good[0])).report
    lines = [f.line() for f in report.findings() if f.level is Level.error]
    assert report.verdict == "refuted"
    assert {f.code for f in report.errors} <= set(codes.split("|")), lines
    assert any(f.code == codes.split("|")[0] and words in f.line() for f in report.errors), lines
    assert all("\n" not in line and "cannot be checked" not in line for line in lines)


def test_the_good_entry_has_no_finding(good: tuple[Path, Path], entry: Path) -> None:
    assert [f.line() for f in verify(entry, str(good[0])).report.findings()] == []


# --------------------------------------------------------------------------- honest near-cases


def quiet_method(entry: Path, suite: Path) -> None:
    """A method that changes nothing: the base's weights and the base's answers, seed by seed."""
    for seed in range(3):
        folder = entry / f"seed-{seed}"
        base = {n: rows(table_of(folder, 0, n)) for n in (*TASKS, "knowledge")}
        change_answers(folder, suite, lambda t, name, now, base=base: base[name] if t else None)
        relabel(folder, dict.fromkeys((1, 2, 3), BASE))


def timid_method(entry: Path, suite: Path) -> None:
    """A method that moves three answers a file, the same ones in every seed."""
    for seed in range(3):
        folder = entry / f"seed-{seed}"
        base = {n: rows(table_of(folder, 0, n)) for n in (*TASKS, "knowledge")}

        def change(t: int, name: str, now: Rows, base: Any = base) -> Rows | None:
            new = [dict(row) for row in base[name]]
            for row in new[:3]:
                row["reply"] = "<answer>moved</answer>"
            return new if t else None

        change_answers(folder, suite, change)


def collapsed_method(entry: Path, suite: Path) -> None:
    """A run that diverged says one thing to everything, whatever its seed."""
    for seed in range(2):

        def change(t: int, name: str, now: Rows) -> None:
            for row in now if t else []:
                row["reply"] = "<answer>A</answer>"

        change_answers(entry / f"seed-{seed}", suite, change)


@pytest.mark.parametrize("spoil", [quiet_method, timid_method, collapsed_method])
def test_what_is_honest_raises_nothing(spoil: Case, good: tuple[Path, Path], entry: Path) -> None:
    """Seeds that are alike because little was learned, or because two of them broke down."""
    spoil(entry, good[0])
    report = verify(entry, str(good[0])).report
    assert [f.line() for f in report.errors] == []


def test_a_seed_that_was_asked_twice_may_differ_a_little(
    good: tuple[Path, Path], entry: Path
) -> None:
    """Sums in another order: the same weights answer one question in sixty differently."""
    quiet_method(entry, good[0])

    def change(t: int, name: str, now: Rows) -> None:
        if (t, name) == (2, "text"):
            now[5]["reply"] = "<answer>another</answer>"

    change_answers(entry / "seed-0", good[0], change)
    assert [f.line() for f in verify(entry, str(good[0])).report.errors] == []


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
    from tests.test_reproductions import write_reproduction

    write_reproduction(entry, "B. Other", lambda new: new.append(new[3]))
    lines = [f.line() for f in verify(entry, str(good[0])).report.errors]
    assert any("duplicate-id" in line and "-test-00003' twice" in line for line in lines), lines
