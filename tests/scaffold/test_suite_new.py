"""What is proposed for a data set: its columns, kinds, grader, splits."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpt_bench.advice.suites import check
from cpt_bench.scaffold.proposal import data_sets, propose, slug
from cpt_bench.scaffold.suite import new_suite
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite
from tests.support.commands import here


def picture(file: Path, shade: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (28, 28), shade).save(file)


def jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


PNG = io.BytesIO()
Image.new("L", (28, 28)).save(PNG, "PNG")

PROPOSED: list[tuple[list[dict[str, Any]], dict[str, Any], tuple[str, ...], str]] = [
    ([{"question": "2+2", "answer": "4"}, {"question": "2+3", "answer": 5}],
     {"question": "{question}", "answer": "answer"}, ("number",), "number"),
    ([{"id": 1, "Query": "odd?", "label": "yes"}, {"id": 2, "Query": "even?", "label": "No"}],
     {"id": "{id}", "question": "{Query}", "answer": "label"}, ("yesno",), "yesno"),
    ([{"q": "a", "a": "yes"}, {"q": "b", "a": "12"}, {"q": "c", "a": "cat"}],
     {"question": "{q}", "answer": "a"}, ("yesno", "number", "word"), "by-kind"),
    ([{"problem": "x", "choices": ["p", "q"], "answer": 0}, {"problem": "y", "choices": ["p", "q"], "answer": 1}],
     {"question": "{problem}\n{options}", "answer": "answer", "choices": "choices", "gold": "index"}, ("letter",), "choice"),
    ([{"problem": "x", "choices": ["p", "q"], "answer": 1}, {"problem": "y", "choices": ["p", "q"], "answer": 2}],
     {"question": "{problem}\n{options}", "answer": "answer", "choices": "choices", "gold": "number"}, ("letter",), "choice"),
    ([{"question": "x", "A": "p", "B": "q", "answer": "B"}],
     {"question": "{question}\n{options}", "answer": "answer", "choices": ["A", "B"], "gold": "letter"}, ("letter",), "choice"),
    ([{"question": "x", "options": ["p", "q"], "answer": "q", "explanation": "since", "subject": "art"}],
     {"question": "{question}\n{options}", "answer": "answer", "choices": "options", "gold": "text",
      "category": "subject", "rationale": "explanation"}, ("letter",), "choice"),
    ([{"question": "x", "image": "a/b.png", "answers": ["red"] * 6 + ["blue"] * 4}],
     {"question": "{question}", "answer": "answers", "images": "image", "annotators": "answers"}, ("word",), "vqa"),
    ([{"text": "good", "picture": {"bytes": PNG.getvalue(), "path": None}, "label": "x"}],
     {"question": "{text}", "answer": "label", "images": "picture"}, ("word",), "exact"),
    ([{"width": 2, "class": "big"}, {"width": 1, "class": "small"}],
     {"question": "width: {width}\nWhat is the class? One of: big, small.", "answer": "class"}, ("word",), "exact"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "mapped", "kinds", "grader"), PROPOSED)
def test_columns_are_proposed(
    rows: list[dict[str, Any]], mapped: dict[str, Any], kinds: tuple[str, ...], grader: str
) -> None:
    found = propose(rows, "here")
    assert (found.map, found.kinds, found.grader) == (mapped, kinds, grader)


def test_ids_that_repeat_are_left_out() -> None:
    found = propose([{"id": 1, "q": "x", "a": "y"}, {"id": 1, "q": "z", "a": "y"}], "here")
    assert "id" not in found.map and "not different in every row" in found.remarks[0]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.jsonl"], [("top", "jsonl", {}, ("a.jsonl",))]),
        (["b.csv", "a.json"], [("a", "json", {}, ("a.json",)), ("b", "csv", {}, ("b.csv",))]),
        (["train.csv", "validation.csv"], [("top", "csv", {"train": ("train.csv",), "test": ("validation.csv",)}, ())]),
        (["x/train-0.parquet", "x/train-1.parquet", "x/test-0.parquet", "y.csv"],
         [("x", "parquet", {"train": ("train-0.parquet", "train-1.parquet"), "test": ("test-0.parquet",)}, ()),
          ("y", "csv", {}, ("y.csv",))]),
        (["cat/1.png", "dog/2.jpg"], [("top", "imagefolder", {}, (".",))]),
        (["train/cat/1.png", "test/dog/2.jpg"], [("top", "imagefolder", {"train": ("train",), "test": ("test",)}, ())]),
        (["digits/3/1.png", "My Shapes/metadata.csv", "My Shapes/1.png"],
         [("my-shapes", "imagefolder", {}, (".",)), ("digits", "imagefolder", {}, (".",))]),
        ([".hidden.csv", "notes.md", "a.tsv"], [("top", "csv", {}, ("a.tsv",))]),
    ],
)  # fmt: skip
def test_data_sets_are_found(tmp_path: Path, files: list[str], expected: list[Any]) -> None:
    for name in files:
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_text("a\n1\n")
    found = data_sets(tmp_path / "top")
    assert [(d.name, d.kind, d.splits, d.files) for d in found] == expected


def test_names_of_tasks() -> None:
    assert [slug(x) for x in ("My Data_2", "3d shapes", "é")] == [
        "my-data-2",
        "task-3d-shapes",
        "task",
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three data sets of different kinds; a picture is in four rows of one of them."""
    folder = tmp_path / "data"
    for i in range(20):
        picture(folder / f"shades/{'dark' if i < 10 else 'light'}/{i}.png", 12 * i)
        picture(folder / f"asked/pictures/{i // 4}.png", 40 + i // 4)
    jsonl(folder / "asked/asked.jsonl", [
        {"question": f"is {i} the shade?", "answer": "yes" if i % 4 else "no", "file": f"pictures/{i // 4}.png"}
        for i in range(20)
    ])  # fmt: skip
    (folder / "table.csv").write_text(
        "size,price\n" + "".join(f"{i % 16},{i % 4}\n" for i in range(20))
    )
    return folder


def test_a_suite_from_a_folder_is_sound_and_its_splits_are_apart(
    data: Path, tmp_path: Path
) -> None:
    done = here(tmp_path, "suite", "new", "mine", "--from", "data")
    assert done.returncode == 0, done.stderr
    assert "Next:\n  cptbench show mine\n" in done.stdout
    suite = load_suite(tmp_path / "mine")
    assert suite.sequence == ("asked", "shades", "table")
    assert [suite.card(t).grader for t in suite.sequence] == ["yesno", "exact", "number"]
    assert suite.card("asked").splits["test"].draw.by == "file"  # type: ignore[union-attr]
    assert suite.card("table").splits["test"].draw.by == "size: {size}\nWhat is the price?"  # type: ignore[union-attr]
    sizes = {t: [s.n for s in suite.card(t).splits.values()] for t in suite.sequence}
    assert sizes["asked"] == [16, 4] and sizes["shades"] == [16, 4] and sum(sizes["table"]) == 20
    found = check(str(tmp_path / "mine"))
    assert not [f for f in found if f.ok is False]
    assert "its licence is 'unknown'" in {f.what for f in found if f.ok is None}
    assert len(load_split(suite.card("asked"), "test")[0].images) == 1


@pytest.mark.parametrize("package", [False, True])
def test_a_suite_that_has_its_data_can_be_moved(data: Path, tmp_path: Path, package: bool) -> None:
    folder, _ = new_suite("mine", tmp_path, str(data), package=package, copy=True)
    assert check(str(folder), write=True)
    before = load_suite(folder).fingerprint()
    moved = folder.rename(tmp_path / "elsewhere")
    for file in data.rglob("*"):
        if file.is_file():
            file.unlink()
    assert load_suite(moved).fingerprint() == before
    assert not [f for f in check(str(moved)) if f.ok is False]
    if package:
        text = (tmp_path / "mine/pyproject.toml").read_text()
        assert 'mine = "mine"' in text and "cpt_bench.suites" in text


def test_a_suite_from_nothing_has_an_example(tmp_path: Path) -> None:
    done = here(tmp_path, "suite", "new", "mine")
    assert done.returncode == 0, done.stderr
    again = here(tmp_path, "suite", "check", "mine")
    assert again.returncode == 0, again.stdout
    assert "  ? " not in again.stdout


@pytest.mark.parametrize(
    ("name", "origin", "complaint"),
    [
        ("My suite", None, "'My suite' is no name for a suite"),
        ("data", None, "exists already"),
        ("mine", "nothing", "no such file or folder"),
        ("mine", "data/table.txt", "'.txt' is no kind of table"),
        ("mine", "data/empty", "has no data set. Tables end in .arrow"),
        ("mine", "data/one.csv", "has 1 rows that can be asked: too few"),
        ("mine", "data/odd.csv", "no column can be the answer. Give a table with a question"),
        ("mine", "data/broken.json", "not valid JSON"),
        ("mine", "data/deep.json", "not valid JSON (nested too deeply)"),
    ],
)  # fmt: skip
def test_what_cannot_be_proposed_is_one_line_and_leaves_nothing(
    data: Path, tmp_path: Path, name: str, origin: str | None, complaint: str
) -> None:
    (data / "empty").mkdir()
    (data / "table.txt").write_text("a\n")
    (data / "one.csv").write_text("question,answer\n1,2\n")
    (data / "odd.csv").write_text("one\n1\n")
    (data / "broken.json").write_text("[1")
    (data / "deep.json").write_text("[" * 5000)
    given = ["--from", origin] if origin else []
    done = here(tmp_path, "suite", "new", name, *given)
    assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1, (
        done.stderr
    )
    assert not (tmp_path / "mine").exists()


def test_a_suite_from_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "prepared"))
    for split in ("train", "validation"):
        jsonl(tmp_path / f"copies/lab/sums/{split}.jsonl",
              [{"question": f"{split} {i}+1?", "answer": str(i + 1)} for i in range(6)])  # fmt: skip
    done = here(tmp_path, "suite", "new", "mine", "--from", "lab/sums", "--copies", "copies")
    assert done.returncode == 0, done.stderr
    card = load_suite(tmp_path / "mine").card("sums")
    assert (card.grader, card.splits["test"].n) == ("number", 6)
    assert "null" not in (tmp_path / "mine/sums.yaml").read_text()
    assert load_split(card, "test")[0].question == "validation 0+1?"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = here(tmp_path, "suite", "new", "other", "--from", "lab/nothing", "--copies", "copies")
    assert done.returncode == 2 and "no split can be read: no folder" in done.stderr
