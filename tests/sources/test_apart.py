"""Test questions in train splits: found before anything is trained, wherever the data come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cpt_bench.errors import CptBenchError
from cpt_bench.run.jobs.prepare import LookJob, look
from cpt_bench.sources import split_digest
from cpt_bench.sources.apart import require_apart
from cpt_bench.sources.leakage import repeated
from cpt_bench.sources.loading import made_split
from cpt_bench.suite import Sample, Suite, load_suite
from tests.support.commands import Cli, here

SUITE: dict[str, Any] = {
    "name": "mine", "title": "Mine", "version": "1", "description": "Mine.", "base_model": "none",
    "sequence": ["first", "second"],
    "protocol": {
        "name": "plain", "style": "neutral", "prompts": {"neutral": "{question} <answer>"},
        "form": {"open": "<answer>", "close": "</answer>"},
        "decoding": {"max_new_tokens": 8}, "reward": {"accuracy": 0.9, "format": 0.1}},
}  # fmt: skip


def table(file: Path, questions: list[str], image: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"q": q, "a": "x", **({"image": image} if image else {})} for q in questions]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def made(folder: Path, in_train: int = 0, images: str = "") -> Suite:
    """A suite of the tables in ``folder``, pinned by hand: nobody checked it."""
    for name in ("first", "second"):
        mapped = {"question": "{q}", "answer": "a", **({"images": "image"} if images else {})}
        splits: dict[str, Any] = {}
        for split in ("train", "test"):
            n = len((folder / f"{name}-{split}.jsonl").read_text().splitlines())
            splits[split] = {"n": n, "sha256": None}
        splits["test"]["in_train"] = in_train
        files = {split: f"{name}-{split}.jsonl" for split in ("train", "test")}
        card = {"name": name, "title": name, "description": name, "version": 1, "grader": "exact",
                "source": {"kind": "jsonl", "splits": files, "map": mapped},
                "splits": splits, "answer_kinds": ["word"], "licence": "MIT"}  # fmt: skip
        write(folder, name, card)
        for split in splits:
            found = made_split(load_suite_card(folder, name), split, check=False)
            splits[split]["sha256"] = split_digest(found)
        write(folder, name, card)
    (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    return load_suite(folder)


def write(folder: Path, name: str, card: dict[str, Any]) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(card, sort_keys=False))


def load_suite_card(folder: Path, name: str) -> Any:
    from cpt_bench.suite.reading import load_card

    return load_card(folder / f"{name}.yaml")


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Two tasks without a question in common."""
    for name in ("first", "second"):
        table(tmp_path / f"{name}-train.jsonl", [f"{name} {i}?" for i in range(4)])
        table(tmp_path / f"{name}-test.jsonl", [f"{name} {i}?" for i in range(10, 13)])
    return tmp_path


def test_tasks_that_share_nothing_are_let_through(tables: Path) -> None:
    lines: list[str] = []
    require_apart(made(tables), lines.append)
    assert lines == []


def test_a_task_that_trains_on_its_test_questions_is_refused(tables: Path) -> None:
    table(tables / "second-train.jsonl", ["other?", "Second  11 ?", "second 12?"])
    with pytest.raises(CptBenchError) as caught:
        require_apart(made(tables))
    assert str(caught.value) == (
        "task second: 1 test questions are in train too (test-2 = train-2). Take both splits from one "
        "table with draw, or leave the rows out with source.where; where they are published so, "
        "declare splits.test.in_train: 1"
    )
    require_apart(made(tables, in_train=1))


@pytest.mark.parametrize("tested", ["first", "second"])
def test_a_task_that_trains_on_another_s_test_questions_is_named(tables: Path, tested: str) -> None:
    trained = {"first": "second", "second": "first"}[tested]
    table(tables / f"{trained}-train.jsonl", [f"{tested} 10?", f"{tested} 12?"])
    lines: list[str] = []
    require_apart(made(tables), lines.append)
    assert lines == [
        f"2 test questions of {tested} are in the train split of {trained} "
        "(test-0 = train-0, test-2 = train-1)"
    ]


@pytest.mark.parametrize(("other", "refused"), [("red", True), ("blue", False)])
def test_one_question_about_two_pictures_is_two_questions(
    tables: Path, other: str, refused: bool
) -> None:
    for file, color in (("a.png", "red"), ("b.png", other)):
        Image.new("RGB", (8, 8), color).save(tables / file)
    for name in ("first", "second"):
        table(tables / f"{name}-train.jsonl", [f"{name}: what is shown?"], "a.png")
        table(tables / f"{name}-test.jsonl", [f"{name}: what is shown?"], "b.png")
    suite = made(tables, images="image")
    if refused:
        with pytest.raises(CptBenchError, match="1 test questions are in train too"):
            require_apart(suite)
    else:
        require_apart(suite)


def test_pictures_are_read_only_where_the_words_are_the_same() -> None:
    class Unread(tuple[bytes, ...]):
        def __iter__(self) -> Any:
            raise AssertionError("a picture was read")

    def sample(question: str) -> Sample:
        return Sample.model_construct(
            id=question, question=question, images=Unread((b"x",)), answers=("x",), kind="word", choices=()
        )  # fmt: skip

    assert repeated([sample("a"), sample("b")], [sample("c")]) == []
    with pytest.raises(AssertionError, match="was read"):
        repeated([sample("a")], [sample("a")])


@pytest.mark.slow
def test_a_run_is_refused_before_anything_is_written(
    tables: Path, tiny_model: Path, tmp_path: Path
) -> None:
    table(tables / "second-train.jsonl", ["other?", "second 11?"])
    made(tables)
    done = here(tmp_path, "run", "--suite", tables, "--base", tiny_model, "--trainer", "sft",
                "--set", "learning_rate=1e-3", "--out", "run")  # fmt: skip
    assert done.returncode == 2 and "task second: 1 test questions are in train too" in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_a_generator_makes_is_compared_when_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from cpt_bench.suite import Sample\n"
        "def make(split, n):\n"
        "    return [Sample(id=f'{split}{i}', question=f'question {i}', kind='word', answers=('x',)) for i in range(n)]\n"
    )
    splits: dict[str, Any] = {split: {"n": 2, "sha256": None} for split in ("train", "test")}
    card = {"name": "first", "title": "First", "description": "First.", "version": 1, "splits": splits,
            "source": {"kind": "generator", "target": "./made.py:make"}, "grader": "exact",
            "answer_kinds": ["word"], "licence": "MIT"}  # fmt: skip
    write(tmp_path, "first", card)
    for split in splits:
        found = made_split(load_suite_card(tmp_path, "first"), split, check=False)
        splits[split]["sha256"] = split_digest(found)
    write(tmp_path, "first", card)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({**SUITE, "sequence": ["first"]}))
    with pytest.raises(CptBenchError, match="task first: 2 test questions are in train too"):
        look(lambda event: None, LookJob(tmp_path, tmp_path / "data"))
    assert not (tmp_path / "data").exists()
    splits["test"]["in_train"] = 2
    write(tmp_path, "first", card)
    look(lambda event: None, LookJob(tmp_path, tmp_path / "data"))
    assert len([*(tmp_path / "data").iterdir()]) == 1


def test_data_prepare_prints_what_splits_share(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "prepared"))
    home, suite = tmp_path / "copies/lab/colours", tmp_path / "mine"
    table(home / "train.jsonl", ["which?", "what?"], "a.png")
    table(home / "test.jsonl", ["Which ?", "how?", "who?"], "a.png")
    Image.new("RGB", (8, 8), "red").save(home / "a.png")
    tables = {s: {"tables": [{"repo": "lab/colours", "split": s}]} for s in ("train", "test")}
    card = {"name": "first", "title": "First", "description": "First.", "version": 1,
            "source": {"kind": "hub", "splits": tables,
                       "map": {"question": "{q}", "answer": "a", "images": "image"}},
            "splits": {"train": {"n": 2, "sha256": None}, "test": {"n": 3, "sha256": None}},
            "grader": "exact", "answer_kinds": ["word"], "licence": "MIT"}  # fmt: skip
    suite.mkdir()
    write(suite, "first", card)
    (suite / "suite.yaml").write_text(yaml.safe_dump({**SUITE, "sequence": ["first"]}))
    for state in ("made", "there"):
        done = cli("data", "prepare", "--suite", suite, "--from", tmp_path / "copies")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f" {state} ") == 2
        words = [" ".join(line.split()) for line in done.stderr.splitlines()]
        assert "first note: 1 test questions are in train too (test-0 = train-0)" in words
        assert "first note: 2 test questions show a picture of train (test-1 = train-0, test-2 = train-0)" in words  # fmt: skip
        assert any(w.startswith("a run will refuse this. Take both splits") for w in words)
    with pytest.raises(CptBenchError, match="task first: 1 test questions are in train too"):
        require_apart(load_suite(suite))
