"""The nano suite is what its cards say, and a broken card is named in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.images import decode
from cpt_bench.sources import load_split, split_digest
from cpt_bench.suite import AnswerForm, Suite, load_suite, open_suite
from tests.support.places import TINY


@pytest.fixture(scope="module")
def nano() -> Suite:
    return open_suite("nano")


def test_roles_and_sizes(nano: Suite) -> None:
    roles = [nano.card(t).role for t in nano.sequence]
    assert roles == [
        "ScienceQA", "TextVQA", "VizWiz", "GQA", "Geometry3K", "PathVQA", "Super-CLEVR",
    ]  # fmt: skip
    assert [nano.card(t).role for t in nano.general] == ["MMMU", "MMLU-Pro", "POPE"]
    for task in nano.sequence:
        splits = nano.card(task).splits
        assert splits["train"].n >= 2000 and splits["test"].n >= 300
    assert all("train" not in nano.card(t).splits for t in nano.general)


@pytest.mark.slow
def test_every_split_has_its_published_hash(nano: Suite) -> None:
    for card in nano.cards.values():
        for split in card.splits:
            load_split(card, split)  # raises when the hash differs


@pytest.mark.slow
def test_no_test_question_is_in_a_train_split(nano: Suite) -> None:
    for task in nano.sequence:
        card = nano.card(task)
        train = {(s.question, s.images) for s in load_split(card, "train")}
        assert not train & {(s.question, s.images) for s in load_split(card, "test")}


def test_ids_are_unique_and_answers_have_the_declared_kinds(nano: Suite) -> None:
    for card in nano.cards.values():
        samples = load_split(card, "test")
        assert len({s.id for s in samples}) == len(samples)
        assert {s.kind for s in samples} <= {*card.answer_kinds, "word"}
        for sample in samples[:20]:
            assert all(decode(i, sample.id).size == (64, 64) for i in sample.images)


def test_priors_are_those_of_the_roles(nano: Suite) -> None:
    lowvision = [s.answers[0] for s in load_split(nano.card("lowvision"), "test")]
    assert 0.33 < lowvision.count("unanswerable") / len(lowvision) < 0.5
    presence = [s.answers[0] for s in load_split(nano.card("presence"), "test")]
    assert 0.4 < presence.count("yes") / len(presence) < 0.6
    assert all(not s.images for s in load_split(nano.card("knowledge"), "test"))


def test_a_shorter_split_is_a_prefix(nano: Suite) -> None:
    from cpt_bench.tasks.nano.samples import make

    longer, shorter = make("train", 8, "scene", 1), make("train", 3, "scene", 1)
    assert longer[:3] == shorter
    assert split_digest(longer) != split_digest(shorter)


def test_answers_follow_from_the_drafts() -> None:
    """Gold recomputed from the cells, for the tasks in which it can be."""
    import random

    from cpt_bench.tasks.nano import questions as q
    from cpt_bench.tasks.nano import world

    rng = random.Random(5)
    for _ in range(200):
        draft = q.counting(rng, "test")
        assert draft.cells is not None
        words = [w for w in draft.question.replace("?", "").split() if w in
                 {*world.COLORS, *world.SHAPES, *world.SIZES}]  # fmt: skip
        found = [c for c in draft.cells if all(w in c for w in words)]
        assert str(len(found)) == draft.answer
        draft = q.presence(rng, "test")
        color, shape = draft.question.split()[2:4]
        assert draft.cells is not None
        there = any(c[1:] == (color, shape) for c in draft.cells)
        assert draft.answer == ("yes" if there else "no")
        draft = q.scene(rng, "test")
        assert draft.cells is not None
        place, target = (world.NAMES.index(n) for n in draft.thought.split())
        _, color, shape = draft.cells[target]
        asked = draft.question.split()[1]
        assert draft.answer == {"color": color, "shape": shape}.get(asked, f"{color} {shape}")
        direction = next(d for d in q.STEPS if d in draft.question)
        assert q.neighbour(place, direction) == target


def _broken(tmp_path: Path, file: str, old: str, new: str) -> Path:
    folder = tmp_path / "suite"
    shutil.copytree(TINY, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("suite.yaml", "max_new_tokens: 20", "max_new_tokens: many", r"protocol.decoding.max_new_tokens: .*'many'"),
        ("suite.yaml", "style: neutral", "style: neutrall", "'neutrall' is not among"),
        ("suite.yaml", '"{question}"', '"question"', r"prompts.neutral has no \{question\}"),
        ("suite.yaml", "name: tiny", "nam: tiny", "nam: Extra inputs"),
        ("suite.yaml", "form: {", "form: {{", r"suite.yaml:\d+: not valid YAML"),
        ("science.yaml", "grader: letter", "grader: [letter]", "science.yaml: grader"),
        ("science.yaml", "n: 32", "n: -1", "splits.train.n"),
    ],
)  # fmt: skip
def test_a_broken_card_is_named_in_one_line(
    tmp_path: Path, file: str, old: str, new: str, complaint: str
) -> None:
    with pytest.raises(CptBenchError, match=complaint) as caught:
        load_suite(_broken(tmp_path, file, old, new))
    assert "\n" not in str(caught.value)


def test_changed_data_is_found(tmp_path: Path) -> None:
    suite = load_suite(_broken(tmp_path, "science.yaml", "seed: 20261122", "seed: 1"))
    with pytest.raises(CptBenchError, match="differs from the published one"):
        load_split(suite.card("science"), "test")


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    folder = _broken(tmp_path, "suite.yaml", "sequence: [science,", "sequence: [sciense,")
    with pytest.raises(CptBenchError, match=r"sciense\.yaml: no such file"):
        load_suite(folder)


def test_a_generated_test_split_is_kept_and_checked(tmp_path: Path) -> None:
    from cpt_bench.files import read_jsonl, write_jsonl
    from cpt_bench.sources.kept import kept_split

    card = open_suite("nano").card("counting")
    made = kept_split(card, tmp_path)
    (folder,) = tmp_path.iterdir()
    read = kept_split(card, tmp_path)
    assert [s.images[0] for s in read[:3]] == [s.images[0] for s in made[:3]]
    assert split_digest(read) == split_digest(made) == split_digest(load_split(card, "test"))
    assert [s.question for s in read] == [s.question for s in made]
    rows = read_jsonl(folder / "samples.jsonl")
    rows[0]["answers"] = ["7"]
    write_jsonl(folder / "samples.jsonl", rows)
    with pytest.raises(CptBenchError, match="was edited"):
        kept_split(card, tmp_path)


def test_no_reply_reasons_where_the_form_has_no_thought() -> None:
    """An entry of such a suite was refuted: what a run and the verifier counted differed."""
    tags = AnswerForm(open="<a>", close="</a>", thought=("<t>", "</t>"))
    bare = AnswerForm(open="<a>", close="</a>")
    for form in (bare, AnswerForm(kind="whole"), AnswerForm(kind="natural", open="is ", close=".")):
        assert not any(form.holds_thought(reply) for reply in ("", "<a>1</a>", "<t>x</t><a>1</a>"))
    assert tags.holds_thought("well, <t>x") and not tags.holds_thought("<a>1</a>")
    assert tags.begins_with_thought(" <t>x") and not tags.begins_with_thought("well, <t>x")
