"""Twenty ways and more to get a card wrong, each with its one line and its cure."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cpt_bench.advice.suites import check, wrong_answers
from cpt_bench.errors import CptBenchError
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, load_suite
from cpt_bench.suite.pinning import pin
from tests.support.commands import here

COLORS = ("red", "green", "blue", "white", "black", "gray", "pink", "brown", "gold", "navy")


def png(color: str, size: int = 28) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "PNG")
    return out.getvalue()


def rows(split: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{split}{i}", "q": f"which colour is {split} square {i}?", "a": color,
         "options": [color, *[c for c in COLORS if c != color][:2]], "image": f"{split}-{color}.png"}
        for i, color in enumerate(COLORS)
    ]  # fmt: skip


CARD: dict[str, Any] = {
    "name": "colours", "title": "Colours", "description": "Colours.", "version": 1,
    "source": {"kind": "jsonl", "splits": {"train": "train.jsonl", "test": "test.jsonl"},
               "map": {"id": "{id}", "question": "{q}", "answer": "a", "images": "image"}},
    "splits": {"train": {"n": 10, "sha256": None}, "test": {"n": 10, "sha256": None}},
    "grader": "exact", "answer_kinds": ["word"], "licence": "CC0-1.0",
}  # fmt: skip
SUITE: dict[str, Any] = {
    "name": "mine", "title": "Mine", "version": "1", "description": "Mine.", "base_model": "none",
    "sequence": ["colours"],
    "protocol": {
        "name": "plain", "style": "neutral",
        "prompts": {"neutral": "{question} Answer between <answer> and </answer>."},
        "form": {"open": "<answer>", "close": "</answer>"},
        "decoding": {"max_new_tokens": 8}, "reward": {"accuracy": 0.9, "format": 0.1}},
}  # fmt: skip


def write(folder: Path, card: dict[str, Any], suite: dict[str, Any] | None = None) -> None:
    (folder / "colours.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite or SUITE, sort_keys=False))


def table(folder: Path, split: str, lines: list[dict[str, Any]]) -> None:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound suite without hashes."""
    for i, split in enumerate(("train", "test")):
        for color in COLORS:
            (tmp_path / f"{split}-{color}.png").write_bytes(png(color, 28 + i))
        table(tmp_path, split, rows(split))
    write(tmp_path, CARD)
    return tmp_path


def over(base: Any, changes: Any) -> Any:
    """``base`` with ``changes`` at some of its keys; None removes a key."""
    if not isinstance(changes, dict) or not isinstance(base, dict):
        return changes
    out = {k: v for k, v in base.items() if k not in changes or changes[k] != "REMOVED"}
    return out | {k: over(base.get(k), v) for k, v in changes.items() if v != "REMOVED"}


def test_a_sound_suite_is_pinned_and_stays_as_it_is(folder: Path) -> None:
    before = [f for f in check(str(folder)) if f.ok is not True]
    assert [(f.place, f.what) for f in before] == [
        (f"colours/{split}", "has no sha256: nobody could tell whether it changed")
        for split in ("train", "test")
    ]
    assert all(f.ok for f in check(str(folder), write=True))
    text = (folder / "colours.yaml").read_text()
    assert "null" not in text
    found = check(str(folder))
    assert all(f.ok for f in found) and len(found) == 5, found
    assert load_suite(folder).fingerprint() in found[-1].what
    assert all(f.ok for f in check(str(folder), write=True))
    assert (folder / "colours.yaml").read_text() == text


def tiered(folder: Path) -> None:
    """Gives the suite a second size."""
    text = (folder / "suite.yaml").read_text()
    (folder / "suite.yaml").write_text(f"{text}tiers: [full, mini]\n")


def break_picture(folder: Path) -> None:
    (folder / "test-red.png").write_bytes(png("red")[:60])


def thin_picture(folder: Path) -> None:
    Image.new("RGB", (400, 1)).save(folder / "test-red.png")


def repeat(folder: Path, split: str, **changes: Any) -> None:
    lines = rows("test")
    table(folder, split, [*rows(split)[:9], {**lines[0], **changes}])


def reword(folder: Path, **changes: Any) -> None:
    table(folder, "test", [{**row, **changes} for row in rows("test")])


GRADERS = """
def leave(split, n): raise SystemExit("no data")
def none(answer, sample): return None
def two(answer, sample): return 2
def yes(answer, sample): return 1
def half(answer, sample): return 1.0 if answer == sample.answers[0] else 0.5
def fails(answer, sample): return sample.golds
def ends(answer, sample): raise SystemExit("no")
asked = []
def fewer(answer, sample): asked.append(answer); return 1 / len(asked)
"""
LETTERS = {
    "grader": "choice",
    "answer_kinds": ["letter"],
    "source": {"map": {"choices": "options", "gold": "text"}},
}
WRONG: dict[str, tuple[dict[str, Any], Any, str]] = {
    # what: (changes to the card, what is done to the folder, the line)
    "a key that is none": ({"grade": "exact"}, None, "grade: Extra inputs are not permitted"),
    "no licence": ({"licence": "REMOVED"}, None, "licence: Field required"),
    "a grader that is none": ({"grader": "exactly"}, None, "no grader is called 'exactly'. Did you mean 'exact'?"),
    "a grader that fails": ({"grader": "./g.py:fails"}, None, "grader ./g.py:fails failed on train0 (AttributeError"),
    "a grader that returns nothing": ({"grader": "./g.py:none"}, None, "grader ./g.py:none gave None to train0. A grader returns a number from 0 to 1"),
    "a grader that returns two": ({"grader": "./g.py:two"}, None, "gave 2 to train0"),
    "a grader that finds all right": ({"grader": "./g.py:yes"}, None, "earns 1, and the gold answer is"),
    "a grader for other answers": ({"grader": "number"}, None, "the gold answer of 'train0' is 'red', not a number. Correct it, or choose another grader"),
    "a grader of letters": ({"grader": "choice", "answer_kinds": ["letter"], "source": {"map": {"choices": "options", "gold": "index"}}}, None, "the answer 'red' is the index of none of its 3 choices. Set map.gold"),
    "a kind that the card has not": ({"source": {"map": {"kind": "colour"}}}, None, "its answer is of kind 'colour'; the card has word"),
    "a size that is not so": ({"splits": {"test": {"n": 12}}}, None, "10 rows, not 12. Set n: 10"),
    "a hash of other data": ({"splits": {"test": {"sha256": "0" * 64}}}, None, "the test split differs from the published one"),
    "a file that is not there": ({"source": {"splits": {"test": "tset.jsonl"}}}, None, "tset.jsonl: no such file. Did you mean 'test.jsonl'?"),
    "a format that is another": ({"source": {"kind": "csv"}}, None, "train.jsonl:2"),
    "a column that is none": ({"source": {"map": {"answer": "aa"}}}, None, "train.jsonl:1: no column 'aa'"),
    "a template without columns": ({"source": {"map": {"question": "q", "images": "REMOVED"}}}, None, "question names no column in braces"),
    "pictures that are elsewhere": ({"source": {"map": {"images": "pictures/{image}"}}}, None, "no picture 'pictures/train-red.png'. It is sought in"),
    "a picture that is too thin": ({}, thin_picture, "test.jsonl:1, test0: the picture is 400 x 1: one side is more than 200 times the other"),
    "a picture that is broken": ({}, break_picture, "test0: "),
    "a filter that leaves nothing": ({"source": {"where": {"a": "mauve"}}}, None, "0 rows, not 10. Correct the files, or the conditions"),
    "ids that repeat": ({"source": {"map": {"id": "{a}x"}}}, lambda f: repeat(f, "train", a="red", image="train-red.png", q="new?"), "the id 'redx' occurs more than once"),
    "a test question in train": ({}, lambda f: repeat(f, "train"), "1 test questions are in train too (test0 = test0)"),
    "a test picture in train": ({}, lambda f: repeat(f, "train", id="t", q="new?"), "1 test questions show a picture of train (test0 = t). Draw by picture"),
    "an empty gold answer": ({}, lambda f: reword(f, a=" "), "test.jsonl:1: no gold answer in a"),
    "an empty question": ({}, lambda f: reword(f, q=" "), "test.jsonl:1, test0: the question is empty"),
    "one answer to all": ({}, lambda f: reword(f, a="red"), "100 % of its answers are 'red': always answering this looks good"),
    "two golds of one question": ({}, lambda f: reword(f, q="which?", image="test-red.png"), "test0 and test1 are one question with two gold answers"),
    "gold with a tag in it": ({}, lambda f: reword(f, a="</answer>x"), "does not have the form"),
    "part credit": ({"grader": "./g.py:half"}, None, "wrong answers earn 0.50 on average, and up to 0.50: grader ./g.py:half gives part credit"),
    "a licence nobody knows": ({"licence": "unknown"}, None, "its licence is 'unknown'. Name the data's licence in the card"),
    "a grader with a memory": ({"grader": "./g.py:fewer"}, None, "grader ./g.py:fewer gave 1 and then 0.5 to one answer to train0. A grader is a function of"),
    "a grader that ends the program": ({"grader": "./g.py:ends"}, None, "grader ./g.py:ends failed on train0 (SystemExit: no). Correct the grader"),
    "a grader that is a file": ({"grader": "./g.py"}, None, "colours: grader ./g.py: names a file, and not what in it is the grader. Write ./g.py:NAME"),
    "a grader that is no Python": ({"grader": "./broken.py:f"}, lambda f: (f / "broken.py").write_text("def f(:"), "grader ./broken.py:f: SyntaxError: invalid syntax"),
    "a generator that is a file": ({"source": {"kind": "generator", "target": "./g.py", "splits": "REMOVED", "map": "REMOVED"}}, None, "g.py: names no function. Write ./g.py:NAME"),
    "a generator that ends the program": ({"source": {"kind": "generator", "target": "./g.py:leave", "splits": "REMOVED", "map": "REMOVED"}}, None, "./g.py:leave failed (SystemExit: no data). It is called as leave('train', 10, **options)"),
    "a draw beyond the rows": ({"splits": {"test": {"n": 2, "draw": {"seed": 0, "skip": 99}}}}, None, "0 rows from this draw, not 2. Only 10 rows fit, so skip and n together may be no more than that"),
    "a condition that is none": ({"source": {"where": {"a": {"atleast": 2}}}}, None, "colours.yaml: source.jsonl.where.a.range.atleast: Extra inputs are not permitted, not 2. Correct the file"),
    "the card of another task": ({"name": "colors"}, None, "colours.yaml: is the card of 'colors'. Write name: colours, or rename the file"),
    "no kind of answers": ({"answer_kinds": []}, None, "answer_kinds: Tuple should have at least 1 item"),
    "choices that nobody sees": (over(LETTERS, {"source": {"map": {"question": "{q}"}}}), None, "no question shows its choices (train0). Put {options} into map.question"),
    "a choice twice": (over(LETTERS, {"source": {"map": {"question": "{q}{options}"}}}), lambda f: reword(f, a="red", options=["red", "Pink", "pink"]), "test0: two of its choices are the same"),
    "a tier that the suite has not": ({"tiers": {"small": {"licence": "MIT"}}}, None, "tiers.small is not a name that suite.yaml has: it is never used. There is: none"),
    "a protocol that the suite has not": ({"protocols": {"direct": {"licence": "MIT"}}}, None, "protocols.direct is not a name that suite.yaml has: it is never used. There is: plain, plain.neutral"),
    "tiers that are a list": ({"tiers": ["small"]}, None, "colours.yaml: tiers: not a mapping of names to mappings, but ['small']. Write tiers: {NAME: {KEY: VALUE}}"),
    "a table in another encoding": ({"source": {"kind": "csv", "splits": {"test": "latin.csv"}}}, lambda f: (f / "latin.csv").write_bytes(b"id,q,a,image\n1,caf\xe9?,red,test-red.png\n"), "latin.csv:2: not UTF-8 (byte 0xe9: invalid continuation byte). Save it as UTF-8"),
    "a column twice": ({"source": {"kind": "csv", "splits": {"test": "twice.csv"}}}, lambda f: (f / "twice.csv").write_text("id,q,a,a,image\n1,?,red,blue,test-red.png\n"), "twice.csv:1: two columns are called 'a'"),
    "a smaller split without a rule": ({"tiers": {"mini": {"splits": {"test": {"n": 2}}}}}, lambda f: tiered(f), "colours@mini/test: 10 rows, not 2. Set n: 10, or choose 2 of them by a rule: draw: {seed: 0}"),
    "draws that overlap": ({"source": {"splits": "REMOVED", "files": "test.jsonl"}, "splits": {"train": {"n": 6, "draw": {"seed": 0}}, "test": {"n": 4, "draw": {"seed": 0}}}}, None, "4 test questions are in train too"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_card_is_one_line_with_a_cure(folder: Path, what: str) -> None:
    changes, done, line = WRONG[what]
    (folder / "g.py").write_text(GRADERS)
    write(folder, over(CARD, changes))
    if done:
        done(folder)
    result = here(folder.parent, "suite", "check", folder)
    lines = [text for text in (result.stdout + result.stderr).splitlines() if line in text]
    assert 1 <= len(lines) <= 2, result.stdout + result.stderr  # each split has its own
    assert "Traceback" not in result.stderr
    assert not lines[0].startswith("ok") and result.returncode in (1, 2)


def test_there_are_twenty_at_least() -> None:
    assert len(WRONG) >= 20


SUITES: dict[str, tuple[dict[str, Any], str]] = {
    "a task without a card": ({"sequence": ["colours", "colors"]}, "colors.yaml: no such file"),
    "a task twice": ({"sequence": ["colours", "colours"]}, "more than once"),
    "half a form": ({"protocol": {"form": {"close": "REMOVED"}}}, "open and close are needed"),
    "a prompt without the question": ({"protocol": {"prompts": {"neutral": "say <answer>"}}}, "prompts.neutral has no {question}"),
    "braces in a prompt": ({"protocol": {"prompts": {"neutral": "{question} {hint} <answer>"}}}, "has braces besides {question}"),
    "a form nobody names": ({"protocol": {"prompts": {"neutral": "{question}"}}}, "no prompt names <answer>, in which an answer has to stand"),
    "a sequence that is a name": ({"sequence": "colours"}, "sequence: not a list of names, but 'colours'. Write sequence: [NAME, NAME]"),
    "no sequence": ({"sequence": None}, "sequence: Input should be a valid tuple"),
    "tiers that are a mapping": ({"tiers": {"mini": 1}}, "tiers: not a list of names, but {'mini': 1}"),
    "a base model called like a protocol": ({"other_bases": {"plain": "model"}}, "other_bases: 'plain' is a tier or a protocol already. Give the base model another name"),
    "other base models that are a list": ({"other_bases": ["small"]}, "other_bases: not a mapping of names to base models, but ['small']. Write other_bases: {NAME: FOLDER}"),
    "protocols that are a list": ({"protocols": ["plain"]}, "protocols: not a mapping of names to mappings, but ['plain']"),
    "prompts that are a text": ({"protocol": {"prompts": "{question} <answer>"}}, "protocol plain: prompts: not a mapping, but '{question} <answer>'"),
    "a style that is none": ({"protocol": {"style": "direct"}}, "style 'direct' is not among prompts"),
}  # fmt: skip


@pytest.mark.parametrize("what", SUITES)
def test_a_wrong_suite_is_one_line_with_a_cure(folder: Path, what: str) -> None:
    changes, line = SUITES[what]
    write(folder, CARD, over(SUITE, changes))
    result = here(folder.parent, "suite", "check", folder)
    found = [text for text in (result.stdout + result.stderr).splitlines() if line in text]
    assert len(found) == 1, result.stdout + result.stderr
    assert result.returncode in (1, 2) and "Traceback" not in result.stderr


def test_a_file_in_no_sequence_is_named(folder: Path) -> None:
    (folder / "other.yaml").write_text("name: other\n")
    assert "no sequence names other.yaml" in {f.what for f in check(str(folder))}


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("sorted(set(CHOICES), key=hash)[i]", "other samples in a second process"),
        ("open('words.txt').read().split()[i]", "cannot be read from another folder"),
    ],
)
def test_a_generator_of_other_samples_each_time_is_found(
    folder: Path, body: str, line: str, monkeypatch: Any
) -> None:
    (folder / "words.txt").write_text(" ".join(COLORS))
    (folder / "made.py").write_text(
        "from cpt_bench.suite import Sample\n"
        f"CHOICES = {COLORS}\n"
        "def make(split, n):\n"
        "    return [Sample(id=f'{split}{i}', question=f'{split} {i}', kind='word',\n"
        f"                   answers=({body},)) for i in range(n)]\n"
    )
    monkeypatch.chdir(folder)
    card = {**CARD, "source": {"kind": "generator", "target": "./made.py:make"}}
    write(folder, card)
    found = check(str(folder), write=True)
    assert line in found[-1].what and found[-1].ok is False and found[-1].cure


def test_wrong_answers_are_wrong() -> None:
    def made(answer: str, kind: str = "word", **more: Any) -> Sample:
        return Sample(id="1", question="?", answers=(answer,), kind=kind, **more)

    others = [made(a) for a in ("2", "2.0", "two", "Two.", "3", "4")]
    assert wrong_answers(made("2", "number"), others) == [
        "two",
        "Two.",
        "3",
        "4",
        "I do not know",
        "qqq",
    ]
    assert wrong_answers(made("no", "yesno"), others)[0] == "yes"
    letters = made("B", "letter", choices=("x", "y", "z"))
    assert wrong_answers(letters, others) == ["A", "C", "I do not know", "qqq"]
    assert len(wrong_answers(made("x"), [made(str(i)) for i in range(50)])) == 10


# ------------------------------------------------------------------------------------- variants

TIERS: dict[str, Any] = {
    "tiers": ["full", "mini", "tiny"], "protocol": "plain",
    "protocols": {
        "plain": {**SUITE["protocol"]},
        "asked": {**SUITE["protocol"], "name": "asked", "prompts": {"neutral": "{question} <answer>", "terse": "{question}<answer>"}},
    },
}  # fmt: skip
NESTED: dict[str, Any] = {
    "tiers": {
        "mini": {"splits": {"train": {"n": 4, "draw": {"seed": 1}}, "test": {"n": 3, "draw": {"seed": 1}}}},
        "tiny": {"splits": {"test": {"n": 2, "draw": {"seed": 1}}}},
    },
}  # fmt: skip


def every_variant(folder: Path) -> dict[str, str]:
    """Variant, split -> the hash in its card, after a look whether its samples have it."""
    found = {}
    for protocol in ("plain.neutral", "asked.neutral", "asked.terse"):
        for tier in ("full", "mini", "tiny"):
            card = load_suite(folder.with_name(f"{folder.name}@{protocol}+{tier}")).card("colours")
            for split, published in card.splits.items():
                assert len(load_split(card, split)) == published.n
                found[f"{protocol}+{tier}/{split}"] = str(published.sha256)
    return found


def test_each_tier_has_its_own_sizes_and_hashes(folder: Path) -> None:
    write(folder, {**CARD, **NESTED}, over(SUITE, TIERS))
    before = {f.place for f in check(str(folder)) if f.ok is False}
    places = ("colours", "colours@asked.neutral+mini", "colours@mini", "colours@tiny")
    assert before == {
        f"{place}/{s}" for place in (places[0], *places[2:]) for s in ("train", "test")
    }
    found = check(str(folder), write=True)
    assert all(f.ok for f in found), found
    hashes = every_variant(folder)
    card = yaml.safe_load((folder / "colours.yaml").read_text())
    assert card["splits"]["test"]["n"] == 10 and card["tiers"]["mini"]["splits"]["test"]["n"] == 3
    assert card["tiers"]["tiny"]["splits"].keys() == {"test"}  # its train split is that of the top
    assert len({hashes[f"plain.neutral+{tier}/test"] for tier in ("full", "mini", "tiny")}) == 3
    assert hashes["plain.neutral+tiny/train"] == hashes["plain.neutral+full/train"]
    assert all(f.ok for f in check(str(folder))) and all(f.ok for f in check(f"{folder}@tiny"))


def test_a_protocol_and_a_style_that_ask_other_words_have_their_own_hashes(folder: Path) -> None:
    """Where no size is given, it is that of the files; a style is more exact than its protocol."""
    asked = {"asked": {"source": {"map": {"question": "Say: {q}"}}}, "asked.terse": {"source": {"map": {"question": "{q}!"}}}}  # fmt: skip
    splits = {split: {"n": 1, "sha256": None} for split in ("train", "test")}
    suite = over(SUITE, {**TIERS, "tiers": "REMOVED"})
    write(folder, {**CARD, "splits": splits, "protocols": asked}, suite)
    found = check(str(folder), write=True)
    assert all(f.ok for f in found), found
    card = yaml.safe_load((folder / "colours.yaml").read_text())
    parts = [card, card["protocols"]["asked"], card["protocols"]["asked.terse"]]
    assert [part["splits"]["test"]["n"] for part in parts] == [10, 10, 10]
    assert len({part["splits"]["test"]["sha256"] for part in parts}) == 3
    assert all(f.ok for f in check(str(folder)))


def test_one_hash_for_two_different_splits_is_refused(folder: Path) -> None:
    """A protocol's own questions in two sizes: the card has one place for both hashes."""
    asked = {"asked": {"source": {"map": {"question": "Say: {q}"}}}}
    write(folder, {**CARD, **NESTED, "protocols": asked}, over(SUITE, TIERS))
    wrong = [f for f in check(str(folder), write=True) if f.ok is False]
    assert wrong and all("protocols.asked of its card has other samples in another variant" in f.what for f in wrong)  # fmt: skip


@pytest.mark.parametrize("spec", [".", ".@mini", "@mini"])
def test_a_suite_is_checked_from_inside_its_folder(
    folder: Path, spec: str, monkeypatch: Any
) -> None:
    write(folder, {**CARD, **NESTED}, over(SUITE, TIERS))
    monkeypatch.chdir(folder)
    named = spec if spec.startswith(".") else f"{folder}{spec}"
    assert all(f.ok for f in check(named, write=True))
    text = (folder / "colours.yaml").read_text()
    assert text.count("null") == (0 if spec == "." else 2)


# ----------------------------------------------------------------------------- leaks across tasks


def test_test_questions_that_another_task_trains_on_are_named(folder: Path) -> None:
    write(folder, CARD, {**SUITE, "sequence": ["colours", "shades"]})
    other = over(CARD, {"name": "shades", "source": {"splits": {"train": "test.jsonl", "test": "more.jsonl"}}})  # fmt: skip
    (folder / "shades.yaml").write_text(yaml.safe_dump(other, sort_keys=False))
    table(folder, "more", [{**row, "q": f"more: {row['q']}"} for row in rows("test")])
    found = [f for f in check(str(folder), write=True) if f.place == "mine" and f.ok is None]
    assert [f.what for f in found] == [
        "10 test questions of colours are in the train split of shades "
        "(test0 = test0, test1 = test1 and 8 more)"
    ]


def test_a_published_leak_is_declared_and_no_more_than_that(folder: Path) -> None:
    repeat(folder, "train")
    for declared, ok in ((0, False), (1, None)):
        write(folder, over(CARD, {"splits": {"test": {"in_train": declared}}}))
        (found,) = [f for f in check(str(folder)) if "are in train too" in f.what]
        assert found.ok is ok
        assert ("splits.test.in_train: 1" in found.cure) == (ok is False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("splits:\n  test: {n: 1, sha256: null} # why\n", "splits:\n  test: {n: 7, sha256: ab} # why\n"),
        ("splits:\n  test: {n: 1}\n", "splits:\n  test: {sha256: ab, n: 7}\n"),
        ("splits:\n  test:\n    n: 1\n    draw: {seed: 0}\n", "splits:\n  test:\n    sha256: ab\n    n: 7\n    draw: {seed: 0}\n"),
        ("# a\nsplits: {train: {n: 2, sha256: 'x'}, test: {sha256: 'y', n: 3}}\n", "# a\nsplits: {train: {n: 2, sha256: 'x'}, test: {sha256: ab, n: 7}}\n"),
    ],
)  # fmt: skip
def test_a_hash_is_written_into_the_card_and_nothing_else(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(text)
    assert pin(file, "test", 7, "ab")
    assert file.read_text() == expected
    assert not pin(file, "test", 7, "ab")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tiers:\n  mini: {splits: {test: {n: 1}}} # few\n", "tiers:\n  mini: {splits: {test: {sha256: ab, n: 7}}} # few\n"),
        ("tiers:\n  mini:\n    licence: x\n", "tiers:\n  mini:\n    splits: {test: {sha256: ab, n: 7}}\n    licence: x\n"),
        ("tiers: {mini: {splits: {train: {n: 2}}}}\n", "tiers: {mini: {splits: {test: {sha256: ab, n: 7}, train: {n: 2}}}}\n"),
        ("base: &b {n: 9}\ntiers: {mini: {splits: {test: {<<: *b}}}}\n", "base: &b {n: 9}\ntiers: {mini: {splits: {test: {sha256: ab, n: 7, <<: *b}}}}\n"),
    ],
)  # fmt: skip
def test_a_hash_is_written_into_the_overlay_that_it_belongs_to(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(text)
    assert pin(file, "test", 7, "ab", ("tiers", "mini"))
    assert file.read_text() == expected
    assert not pin(file, "test", 7, "ab", ("tiers", "mini"))


@pytest.mark.parametrize(
    "text",
    [
        "splits: {train: &s {n: 1, sha256: null}, test: *s}\n",
        "splits: {train: {n: 2, sha256: &h null}, test: {n: 3, sha256: *h}}\n",
        "splits: &s\n  test: {n: 1, sha256: null}\ntiers: {mini: {splits: *s}}\n",
    ],
)
def test_a_hash_that_would_be_another_split_s_too_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(text)
    with pytest.raises(CptBenchError, match=r"splits\.test cannot be written alone: its YAML"):
        pin(file, "test", 7, "ab")
    assert file.read_text() == text
