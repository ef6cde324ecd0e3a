"""A data set of the hub under a map: JSON lines with picture paths, classes by name, no code."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

pytest.importorskip("datasets")

from cpt_bench.errors import CptBenchError
from cpt_bench.sources import load_split
from cpt_bench.sources.hub import prepare
from cpt_bench.suite.reading import load_card
from tests.support import hub as fake
from tests.support.commands import here

COLORS = ("red", "green", "blue", "white")


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: Any) -> Path:
    """Local copies of two data sets, as ``data prepare --from`` takes them."""
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "prepared"))
    home = tmp_path / "copies/lab/colours"
    (home / "pictures").mkdir(parents=True)
    for color in COLORS:
        Image.new("RGB", (28, 28), color).save(home / f"pictures/{color}.png")
    for split in ("train", "test"):
        rows = [
            {"ask": f"which colour is {split} {i}?", "said": c, "file": f"pictures/{c}.png", "lang": "de" if i == 3 else "en"}
            for i, c in enumerate(COLORS)
        ]  # fmt: skip
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "copies"


CARD: dict[str, Any] = {
    "name": "colours", "title": "Colours", "description": "Colours.", "version": 1,
    "grader": "exact", "answer_kinds": ["word"], "licence": "CC0-1.0",
    "splits": {"train": {"n": 3, "sha256": None}, "test": {"n": 3, "sha256": None}},
}  # fmt: skip


def card(folder: Path, **source: Any) -> Any:
    file = folder / "colours.yaml"
    file.write_text(yaml.safe_dump({**CARD, "source": {"kind": "hub", **source}}))
    return load_card(file)


SPLITS = {name: {"tables": [{"repo": "lab/colours", "split": name}]} for name in ("train", "test")}
MAP = {"question": "{ask}", "answer": "said", "images": "file"}


def test_json_lines_with_picture_paths(copies: Path) -> None:
    made = card(copies, map=MAP, where={"lang": "en"}, splits=SPLITS)
    assert prepare(made, "test", copies)["n"] == 3
    samples = load_split(load_card(copies / "colours.yaml"), "test")
    assert [(s.id, s.question, s.answers) for s in samples][:1] == [
        ("test-0", "which colour is test 0?", ("red",))
    ]
    assert Image.open(io.BytesIO(samples[1].images[0])).getpixel((0, 0)) == (0, 128, 0)


def test_an_adapter_gets_pictures_that_are_named_by_a_column_of_text(copies: Path) -> None:
    (copies / "rows.py").write_text(
        "from cpt_bench.suite import Sample\n"
        "def make(row, index, split):\n"
        "    if row['lang'] != 'en':\n        return None\n"
        "    return Sample(id=str(index), question=row['ask'], images=(row['file'],), answers=(row['said'],), kind='word')\n"
    )
    columns = {"ask": "string", "said": "string", "lang": "string", "file": "image|string"}
    splits = {name: {**split, "columns": columns} for name, split in SPLITS.items()}
    made = card(copies, target="./rows.py:make", splits=splits)
    prepare(made, "train", copies)
    samples = load_split(load_card(copies / "colours.yaml"), "train")
    assert Image.open(io.BytesIO(samples[2].images[0])).getpixel((0, 0)) == (0, 0, 255)


def test_columns_of_classes_are_read_by_their_names(copies: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    home = copies / "lab/classes/data"
    home.mkdir(parents=True)
    features = Features({"text": Value("string"), "label": ClassLabel(names=["good", "bad"])})
    for split in ("train", "test"):
        rows = {"text": [f"{split} one", f"{split} two", "three"], "label": [1, 0, 1]}
        Dataset.from_dict(rows, features=features).to_parquet(
            str(home / f"{split}-00000-of-00001.parquet")
        )
    splits = {n: {"tables": [{"repo": "lab/classes", "split": n}]} for n in ("train", "test")}
    made = card(copies, map={"question": "{text}", "answer": "label"}, splits=splits)
    prepare(made, "test", copies)
    samples = load_split(load_card(copies / "colours.yaml"), "test")
    assert [s.answers[0] for s in samples] == ["bad", "good", "bad"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"map": {**MAP, "answer": "sad"}}, "no column 'sad' (there is: ask, said, file, lang)"),
        ({"map": {**MAP, "images": "pictures/{said}.jpg"}}, "the picture 'pictures/red.jpg' is not in the data set's folder"),
        ({"map": {**MAP, "labels": {"said": {"red": "R"}}}}, "row 1: labels.said has no word for 'green'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(copies: Path, source: dict[str, Any], complaint: str) -> None:
    made = card(copies, where={"lang": "en"}, splits=SPLITS, **source)
    with pytest.raises(CptBenchError) as caught:
        prepare(made, "test", copies)
    assert complaint in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


SUITE = """
name: shades
version: 1.0.0
title: Shades
description: Colours.
base_model: {id: lab/model}
sequence: [colours]
protocol:
  name: plain
  style: direct
  prompts: {direct: "{question} Answer as <answer>...</answer>."}
  form: {open: "<answer>", close: "</answer>"}
  decoding: {max_new_tokens: 20}
  reward: {accuracy: 0.9, format: 0.1}
"""


@pytest.fixture
def served(copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.Hub]:
    """The same data sets on a hub on loopback."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served/datasets").symlink_to(copies)
    with fake.serving(tmp_path / "served") as server:
        fake.point_at(server.url, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "prepared"))
        yield server


def test_a_picture_by_its_path_is_fetched(
    served: fake.Hub, copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of that name in the current folder is another picture."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "pictures").mkdir(parents=True)
    for color in COLORS:
        Image.new("RGB", (28, 28), "black").save(elsewhere / f"pictures/{color}.png")
    monkeypatch.chdir(elsewhere)
    made = card(copies, map=MAP, where={"lang": "en"}, splits=SPLITS)
    facts = prepare(made, "test")
    assert (facts["n"], facts["local"]) == (3, False)
    samples = load_split(load_card(copies / "colours.yaml"), "test")
    known = [(copies / f"lab/colours/pictures/{c}.png").read_bytes() for c in COLORS[:3]]
    assert [s.images[0] for s in samples] == known
    assert not served.asked("white.png"), "only pictures of rows that are used are fetched"


@pytest.mark.parametrize("name", ["pictures/none.png", "../colours/none.png", "/etc/hostname"])
def test_other_splits_are_tried_where_a_picture_is_missing(
    served: fake.Hub, copies: Path, tmp_path: Path, name: str
) -> None:
    file = copies / "lab/colours/train.jsonl"
    file.write_text(file.read_text().replace("pictures/green.png", name))
    card(copies, map=MAP, where={"lang": "en"}, splits=SPLITS)
    (copies / "suite.yaml").write_text(SUITE)
    for origin in ((), ("--from", copies)):
        shutil.rmtree(tmp_path / "prepared", ignore_errors=True)
        done = here(
            tmp_path, "data", "prepare", "--suite", copies, "--task", "colours", *map(str, origin)
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        (line,) = [x for x in done.stderr.splitlines() if x.startswith("colours/train")]
        assert "FAILED  lab/colours, split train, row 1: " in line and repr(name)[1:-1] in line
        assert "colours/test         made" in done.stdout
        assert "not prepared: colours/train. What was prepared is saved" in done.stderr


@pytest.mark.parametrize("value", [None, "", []])
def test_a_null_picture_is_refused(copies: Path, value: Any) -> None:
    for file in (copies / "lab/colours").glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        if value == []:
            rows = [{**row, "file": [row["file"]]} for row in rows]
        rows[1]["file"] = value
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = card(copies, map=MAP, where={"lang": "en"}, splits=SPLITS)
    with pytest.raises(CptBenchError, match="test-1: the question has no picture"):
        prepare(made, "test", copies)
    free = {**SPLITS, "test": {**SPLITS["test"], "no_picture": True}}
    prepare(card(copies, map=MAP, where={"lang": "en"}, splits=free), "test", copies)
    samples = load_split(load_card(copies / "colours.yaml"), "test")
    assert [len(s.images) for s in samples] == [1, 0, 1]


def test_a_thin_picture_is_refused(copies: Path) -> None:
    Image.new("RGB", (400, 1)).save(copies / "lab/colours/pictures/green.png")
    made = card(copies, map=MAP, where={"lang": "en"}, splits=SPLITS)
    with pytest.raises(CptBenchError, match="lab/colours, test-1: the picture is 400 x 1: one"):
        prepare(made, "test", copies)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"splits": SPLITS}, "give a target or a map, and not both"),
        ({"splits": SPLITS, "map": MAP, "target": "a:b"}, "give a target or a map, and not both"),
        ({"splits": SPLITS, "target": "a:b"}, "columns is needed where there is no map"),
    ],
)  # fmt: skip
def test_a_hub_source_that_says_nothing_or_too_much(
    copies: Path, source: Any, complaint: str
) -> None:
    with pytest.raises(CptBenchError, match=complaint):
        card(copies, **source)
