"""Samples from files that a card declares: every format, every column, and what is wrong in one line."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cpt_bench.errors import CptBenchError
from cpt_bench.sources import load_split, questions_of, split_digest
from cpt_bench.sources.declared import usable_rows
from cpt_bench.sources.kept import kept_split
from cpt_bench.sources.leakage import leaks
from cpt_bench.suite import Sample, TaskCard
from cpt_bench.suite.reading import load_card


def png(color: str, size: int = 28) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "PNG")
    return out.getvalue()


COLORS = ("red", "green", "blue", "white", "black", "gray")
ROWS: list[dict[str, Any]] = [
    {
        "qid": f"q{i}",
        "q": f"which colour is square {i}?",
        "options": [color, "pink", "brown"],
        "label": 0,
        "image": f"pictures/{color}.png",
        "votes": [color, color, "dark"],
        "meta": {"topic": "light" if i % 2 else "dark", "level": i},
        "why": f"it is {color}",
    }
    for i, color in enumerate(COLORS)
]
MAP = {
    "id": "{qid}",
    "question": "{q}\n{options}",
    "choices": "options",
    "answer": "label",
    "gold": "index",
    "images": "image",
    "annotators": "votes",
    "category": "meta.topic",
    "rationale": "why",
}


def options(i: int) -> str:
    return "\n".join(f"{x}. {c}" for x, c in zip("ABC", ROWS[i]["options"], strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for color in COLORS:
        (tmp_path / f"pictures/{color}.png").write_bytes(png(color))
    return tmp_path


def card(
    folder: Path, source: dict[str, Any], splits: dict[str, Any] | None = None, **changes: Any
) -> TaskCard:
    """The card with the hashes of its splits, written and read."""
    data = {
        "name": "colours", "title": "Colours", "description": "Colours.", "version": 1,
        "source": source, "grader": "choice", "answer_kinds": ["letter"], "licence": "CC0-1.0",
        "splits": splits or {"train": {"n": 4, "sha256": None, "draw": {"seed": 1, "skip": 2}},
                             "test": {"n": 2, "sha256": None, "draw": {"seed": 1}}},
        **changes,
    }  # fmt: skip
    (folder / "colours.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return load_card(folder / "colours.yaml")


def loaded(made: TaskCard, split: str = "test") -> list[Sample]:
    return load_split(made, split, check=False)


def write(
    folder: Path, kind: str, rows: list[dict[str, Any]], name: str = "data"
) -> dict[str, Any]:
    """Rows in a format, and the source that reads them."""
    file = folder / f"{name}.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        file.write_text(json.dumps(rows))
    elif kind == "csv":
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(rows)
        if kind == "parquet":
            pq.write_table(table, file)
        else:
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
    return {"kind": kind, "files": file.name, "map": MAP}


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
def test_every_format_gives_the_same_samples(folder: Path, kind: str) -> None:
    made = card(folder, write(folder, kind, ROWS))
    train, test = loaded(made, "train"), loaded(made)
    assert {s.id for s in (*train, *test)} == {f"q{i}" for i in range(6)}
    sample = next(s for s in (*train, *test) if s.id == "q1")
    assert sample.question == "which colour is square 1?\nA. green\nB. pink\nC. brown"
    assert (sample.answers, sample.kind) == (("A",), "letter")
    assert sample.choices == ("green", "pink", "brown")
    assert sample.annotators == ("green", "green", "dark")
    assert (sample.category, sample.rationale) == ("light", "it is green")
    assert [*sample.images] == [png("green")]
    expected = card(folder, write(folder, "jsonl", ROWS))
    assert split_digest(test) == split_digest(loaded(expected))


def test_a_table_of_text(folder: Path) -> None:
    """CSV has only text, and a column for each choice."""
    rows = [
        {"a": "one", "b": "two", "c": "" if i else "three", "right": "2", "n": str(i)}
        for i in range(6)
    ]
    source = write(folder, "csv", rows)
    source["map"] = {"question": "number {n}?\n{options}", "choices": ["a", "b", "c"],
                     "answer": "right", "gold": "number"}  # fmt: skip
    made = card(folder, {**source, "where": {"n": {"at_least": 2, "at_most": 4}}},
                {"test": {"n": 3, "sha256": None}, "train": {"n": 3, "sha256": None}})  # fmt: skip
    assert [(s.id, s.question, s.answers) for s in loaded(made)] == [
        (str(i), f"number {i}?\nA. one\nB. two", ("B",)) for i in (2, 3, 4)
    ]


def test_pictures_by_bytes_by_base64_and_several(folder: Path) -> None:
    encoded = "data:image/png;base64," + base64.b64encode(png("red")).decode()
    rows = [
        {"q": "?", "a": "red", "image": encoded, "more": ["pictures/red.png", "pictures/blue.png"]}
    ]
    source = write(folder, "jsonl", rows)
    source["map"] = {"question": "{q}", "answer": "a", "images": ["image", "more"]}
    one = {"test": {"n": 1, "sha256": None}, "train": {"n": 1, "sha256": None}}
    made = card(folder, source, one, answer_kinds=["word"], grader="exact")
    assert [*loaded(made)[0].images] == [png("red"), png("red"), png("blue")]
    source = write(
        folder, "parquet", [{"q": "?", "a": "red", "image": {"bytes": png("red"), "path": None}}]
    )
    source["map"] = {"question": "{q}", "answer": "a", "images": "image"}
    made = card(folder, source, one, answer_kinds=["word"], grader="exact")
    assert [*loaded(made)[0].images] == [png("red")]


def test_a_folder_of_pictures(folder: Path) -> None:
    for split, colors in (("train", COLORS[:4]), ("test", COLORS[2:])):
        for color in colors:
            place = folder / split / color
            place.mkdir(parents=True)
            (place / f"{color}-{split}.png").write_bytes(png(color, 30))
    source = {
        "kind": "imagefolder",
        "splits": {"train": "train", "test": {"files": ["test"]}},
        "map": {"question": "which colour?", "answer": "label", "images": "image",
                "labels": {"label": {"gray": "grey", **{c: c for c in COLORS[:5]}}}},
    }  # fmt: skip
    four = {"train": {"n": 4, "sha256": None}, "test": {"n": 4, "sha256": None}}
    made = card(folder, source, four, answer_kinds=["word"], grader="exact")
    assert [(s.id, s.answers[0]) for s in loaded(made)] == [
        ("test-0", "black"), ("test-1", "blue"), ("test-2", "grey"), ("test-3", "white")
    ]  # fmt: skip
    (folder / "test/metadata.csv").write_text("file_name,label\ngray/gray-test.png,gray\n")
    four["test"]["n"] = 1
    made = card(folder, source, four, answer_kinds=["word"], grader="exact")
    assert [s.answers for s in loaded(made)] == [("grey",)]


def test_kinds_are_told_from_the_answers(folder: Path) -> None:
    answers = ["yes", "No", "3", "1,200", "a cat", True, 2.0]
    source = write(folder, "jsonl", [{"q": f"{i}?", "a": a} for i, a in enumerate(answers)])
    source["map"] = {"question": "{q}", "answer": "a"}
    seven = {"train": {"n": 7, "sha256": None}, "test": {"n": 7, "sha256": None}}
    made = card(folder, source, seven, answer_kinds=["yesno", "number", "word"], grader="by-kind")
    assert [s.kind for s in loaded(made)] == [
        "yesno",
        "yesno",
        "number",
        "number",
        "word",
        "yesno",
        "number",
    ]
    assert [s.answers[0] for s in loaded(made)][-2:] == ["yes", "2"]


def test_a_draw_by_a_column_keeps_groups_together(folder: Path) -> None:
    rows = [{**ROWS[i % 6], "qid": f"r{i}"} for i in range(24)]
    source = write(folder, "jsonl", rows)
    draws = {"train": {"n": 16, "sha256": None, "draw": {"seed": 5, "skip": 8, "by": "image"}},
             "test": {"n": 8, "sha256": None, "draw": {"seed": 5, "by": "image"}}}  # fmt: skip
    made = card(folder, source, draws)
    pictures = [{bytes(s.images[0]) for s in loaded(made, split)} for split in ("train", "test")]
    assert len(pictures[0]) == 4 and len(pictures[1]) == 2 and not pictures[0] & pictures[1]
    assert len(usable_rows(made, "test")) == 24


def test_gold_may_be_in_a_file_of_its_own(folder: Path) -> None:
    questions = [{k: v for k, v in row.items() if k != "label"} for row in ROWS]
    source = write(folder, "jsonl", questions)
    (folder / "gold.jsonl").write_text(
        "".join(json.dumps({"qid": row["qid"], "label": row["label"]}) + "\n" for row in ROWS)
    )
    source = {"kind": "jsonl", "map": MAP, "splits": {
        "train": "data.jsonl", "test": {"files": "data.jsonl", "gold": "gold.jsonl"}}}  # fmt: skip
    six = {"train": {"n": 6, "sha256": None}, "test": {"n": 6, "sha256": None}}
    made = card(folder, source, six)
    assert [s.answers for s in loaded(made)] == [("A",)] * 6
    assert folder / "gold.jsonl" in made.places()
    (folder / "gold.jsonl").unlink()
    with pytest.raises(CptBenchError, match="the gold of this split is not on this machine"):
        loaded(made)
    asked = questions_of(made)
    assert [s.question for s in asked] == [
        f"which colour is square {i}?\n{options(i)}" for i in range(6)
    ]
    assert {s.answers for s in asked} == {("?",)} and [*asked[0].images] == [png("red")]


def test_an_instruction_is_asked_and_not_hashed(folder: Path) -> None:
    plain = card(folder, write(folder, "jsonl", ROWS))
    sha256 = split_digest(loaded(plain))
    splits = {"train": {"n": 6, "sha256": None},
              "test": {"n": 2, "sha256": sha256, "draw": {"seed": 1}}}  # fmt: skip
    made = card(folder, write(folder, "jsonl", ROWS), splits, instruction="\nBe brief.")
    for samples in (
        load_split(made, "test"),
        kept_split(made, folder / "k"),
        kept_split(made, folder / "k"),
    ):
        assert [s.question for s in samples] == [s.question + "\nBe brief." for s in loaded(plain)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"files": "nothing.jsonl"}, "nothing.jsonl: no such file. There is: "),
        ({"files": "pictures"}, "is a directory. Name jsonl files in it"),
        ({"kind": "json"}, "not valid JSON"),
        ({"kind": "imagefolder", "files": "data.jsonl"}, "is not a directory"),
        ({"map": {**MAP, "question": "{qq}"}}, "data.jsonl:5: no column 'qq'"),
        ({"map": {**MAP, "category": "meta.subject"}}, "no column 'meta.subject'"),
        ({"map": {**MAP, "gold": "text"}}, "the answer '0' is the text of none of its 3 choices"),
        ({"map": {**MAP, "answer": "qid", "gold": "index"}}, "'q4' is the index of none of its 3 choices"),
        ({"map": {**MAP, "answer": "meta"}}, "column 'meta' is {'topic'"),
        ({"map": {**MAP, "choices": "q"}}, "column 'q' is 'which colour is square 4?', not a list"),
        ({"map": {**MAP, "images": "qid"}}, "no picture 'q4'. It is sought in"),
        ({"map": {**MAP, "images": "http://x/{qid}"}}, "is an address"),
        ({"map": {**MAP, "images": "/tmp/{qid}.png"}}, "named by an absolute path"),
        ({"map": {**MAP, "id": "same"}}, "the id 'same' occurs more than once"),
        ({"map": {**MAP, "labels": {"label": ["a"]}, "answer": "meta.level"}}, "is the index of none"),
        ({"where": {"language": "en"}}, "no column 'language'"),
        ({"where": {"qid": {"at_least": 3}}}, "column 'qid' is 'q0', not a number"),
        ({"where": {"qid": "q1"}}, "1 rows from this draw, not 2. Set n: 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(
    folder: Path, change: dict[str, Any], complaint: str
) -> None:
    source = {**write(folder, "jsonl", ROWS), **change}
    with pytest.raises(CptBenchError) as caught:
        loaded(card(folder, source))
    assert complaint in str(caught.value) and "\n" not in str(caught.value), str(caught.value)
    assert "task colours, test split" in str(caught.value)


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"q": "a", "q": "b"}', "the key 'q' occurs twice"),
        ('{"q": NaN}', "NaN is not a number in JSON"),
        ('{"q": -Infinity}', "-Infinity is not a number in JSON"),
        ('{"q": ' + 5000 * "[", "nested too deeply"),
    ],
)
def test_an_array_is_read_as_strictly_as_lines(
    folder: Path, kind: str, row: str, complaint: str
) -> None:
    (folder / "data").write_text(f"[{row}]" if kind == "json" else row)
    with pytest.raises(CptBenchError) as caught:
        loaded(card(folder, {"kind": kind, "files": "data", "map": MAP}))
    assert f"not valid JSON ({complaint})" in str(caught.value), str(caught.value)


ONE = {"test": {"n": 1, "sha256": None}, "train": {"n": 1, "sha256": None}}
WORDS: dict[str, Any] = {"answer_kinds": ["word"], "grader": "exact"}


def of_one(folder: Path, how: str, data: bytes) -> TaskCard:
    """A card with one row, whose picture is ``data``."""
    row: dict[str, Any] = {"name": "q7", "q": "which?", "a": "red", "image": "odd.png"}
    (folder / "odd.png").write_bytes(data)
    encoded = "data:image/png;base64," + base64.b64encode(data).decode()
    shown = {"bytes": {"bytes": data, "path": None}, "base64": encoded, "list": ["odd.png"]}
    kind = {"csv": "csv", "json": "json", "bytes": "parquet", "arrow": "arrow"}.get(how, "jsonl")
    row["image"] = shown.get(how, "odd.png")
    source = write(folder, kind, [row])
    source["map"] = {"id": "{name}", "question": "{q}", "answer": "a", "images": "image"}
    if how == "template":
        source["map"]["images"] = "odd.{a}"
        (folder / "odd.red").write_bytes(data)
    if how == "imagefolder":
        (folder / "shown/q7").mkdir(parents=True)
        (folder / "shown/q7/odd.png").write_bytes(data)
        source = {"kind": "imagefolder", "files": "shown"}
        source["map"] = {
            "id": "{label}",
            "question": "which?",
            "answer": "label",
            "images": "image",
        }
    return card(folder, source, ONE, **WORDS)


HOW = ["jsonl", "json", "csv", "bytes", "arrow", "base64", "list", "template", "imagefolder"]


@pytest.mark.parametrize("how", HOW)
def test_a_thin_picture_is_refused_with_its_row(folder: Path, how: str) -> None:
    for size in ((400, 1), (1, 201)):
        out = io.BytesIO()
        Image.new("RGB", size).save(out, "PNG")
        with pytest.raises(CptBenchError) as caught:
            loaded(of_one(folder, how, out.getvalue()))
        line = str(caught.value)
        assert f", q7: the picture is {size[0]} x {size[1]}: one side is more than 200" in line
        assert line.startswith("task colours, test split: ") and "\n" not in line
        assert line.endswith("Correct the row, or leave it out with source.where")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder / "shown")
    out = io.BytesIO()
    Image.new("RGB", (200, 1)).save(out, "PNG")
    assert [*loaded(of_one(folder, how, out.getvalue()))[0].images] == [out.getvalue()]


@pytest.mark.parametrize("how", ["jsonl", "bytes", "base64"])
def test_a_broken_picture_is_refused_with_its_row(folder: Path, how: str) -> None:
    with pytest.raises(CptBenchError, match=", q7: the picture is broken"):
        loaded(of_one(folder, how, b"\x89PNG broken"))


@pytest.mark.parametrize(
    "value", [None, "", [], [None], {"bytes": None, "path": None}, {"bytes": None, "path": ""}]
)
def test_a_null_picture_is_refused_with_its_row(folder: Path, value: Any) -> None:
    rows = [{**ROWS[0], "image": value}]
    source = write(folder, "jsonl", rows)
    with pytest.raises(CptBenchError, match=r"data.jsonl:1, q0: the question has no picture"):
        loaded(card(folder, source, ONE))
    free = loaded(card(folder, {**source, "no_picture": True}, ONE))
    assert len(free[0].images) == 0
    where = {**source, "where": {"qid": "q0"}}
    assert len(loaded(card(folder, {**where, "no_picture": True}, ONE))) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"map": {**MAP, "same_choices": ["a"]}}, "choices and same_choices: give one of the two"),
        ({"map": {"question": "{q}\n{options}", "answer": "a"}}, "question has {options}, but neither"),
        ({"map": {"question": "{q}", "answer": "a", "gold": "index"}}, "gold: index needs choices"),
        ({"map": {"question": "no column", "answer": "a"}}, "question names no column in braces"),
        ({"map": {"question": "{q}"}}, "source.jsonl.map.answer: Field required"),
        ({"map": {**MAP, "answers": "x"}}, "answers: Extra inputs are not permitted"),
        ({"kind": "jsonlines"}, "'jsonlines'"),
    ],
)  # fmt: skip
def test_a_map_that_contradicts_itself(
    folder: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CptBenchError) as caught:
        card(folder, {**write(folder, "jsonl", ROWS), **change})
    assert complaint in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def test_splits_that_share_a_question_or_a_picture(folder: Path) -> None:
    def made(name: str, question: str, *images: bytes) -> Sample:
        return Sample(id=name, question=question, images=images, answers=("x",), kind="word")

    jpeg, smaller = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(jpeg, "BMP")
    Image.new("RGB", (27, 27), "red").save(smaller, "PNG")
    train = [made("a", "What colour?", png("red")), made("b", "Two words"), made("c", "is 1+2 odd")]
    test = [
        made("same in another format", "what  colour", jpeg.getvalue()),
        made("the same picture", "which shape?", jpeg.getvalue()),
        made("the same words", "what colour?", png("blue")),
        made("text", "two words!"),
        made("another sum", "is 1-2 odd"),
        made("scaled", "what colour?", smaller.getvalue()),
    ]
    found = leaks(train, test)
    assert found.questions == [("same in another format", "a"), ("text", "b")]
    assert found.pictures == [("the same picture", "a")]
