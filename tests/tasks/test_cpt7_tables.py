"""The ten loaders through the hub's own call, on tables with the hub's schemas: samples in the publication's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
from datasets import Features, Value

from cpt_bench.files import read_json
from cpt_bench.images import decode
from cpt_bench.sources import hub, load_split
from cpt_bench.suite import Sample, Suite, TaskCard, open_suite
from cpt_bench.suite import prepared as places
from tests.support import cpt7_fixtures as fx
from tests.support.cpt7_fixtures import GENERAL, TASKS, TEST, TRAIN

pytestmark = pytest.mark.usefixtures("cpt7_place")


@pytest.mark.parametrize("task", [*TASKS, *GENERAL])
def test_every_table_is_read_with_its_pictures_as_rgb(cpt7: Suite, task: str) -> None:
    card = cpt7.card(task)
    for split in card.splits:
        samples = load_split(card, split)
        assert len(samples) == card.splits[split].n == (TRAIN if split == "train" else TEST)
        assert len({s.id for s in samples}) == len(samples)
        assert all(s.kind in card.answer_kinds for s in samples)
        for sample in samples:
            assert bool(sample.images) == (task != "mmlu_pro")
            for encoded in sample.images:
                assert decode(encoded, sample.id).mode == "RGB"
        assert card.splits[split].sha256 == places.recorded(card, split)


def test_pictures_come_in_every_awkward_mode(cpt7: Suite) -> None:
    """Or the test above would show nothing."""
    import io

    from PIL import Image

    modes = {
        (image.mode, image.format)
        for sample in load_split(cpt7.card("textvqa"), "train")
        for image in [Image.open(io.BytesIO(sample.images[0]))]
    }
    assert {m for m, _ in modes} == {"RGB", "CMYK", "P", "L", "RGBA", "LA", "1"}
    assert ("CMYK", "JPEG") in modes


PROMPTS = {
    "scienceqa": ("Context: Look at 1.\nWhich is number 1?\nA. option w\nB. option x\nC. option y\n"
                  "Answer with the option's letter from the given choices directly.", ("B",)),
    "textvqa": ("what is written on sign 6?\nReference OCR token:\nAnswer the question using a single word or phrase.", ("stop 6",)),
    "vizwiz": ("What is this 1?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
               "Answer the question using a single word or phrase.", ("unanswerable",)),
    "gqa": ("Is thing 1 red?\nAnswer the question using a single word or phrase.", ("no",)),
    "geometry3k": ("Find $x$ when $m \\angle A = 1$.", ("4 \\frac { 4 } { 11 }",)),
    "pathvqa": ("what is shown in 1?\nAnswer the question using a single word or phrase.", ("no",)),
    "mmmu": ("What does <image 1> show in case 1?\n\n(A) a $5\n(B) Theory's end\n(C) None\n(D) <image 2>\n\n"
             "Answer with the option's letter from the given choices directly.", ("C",)),
    "mmlu_pro": ("What follows from 1?\nA. option a\nB. option b\nC. option c\nD. option d\nAnswer with the option's letter.", ("B",)),
    "pope": ("Is there a dog 1 in the image?\nAnswer the question using a single word or phrase.", ("yes",)),
}  # fmt: skip


@pytest.mark.parametrize("task", PROMPTS)
def test_questions_are_in_the_publication_s_words(cpt7: Suite, task: str) -> None:
    question, answers = PROMPTS[task]
    sample = load_split(cpt7.card(task), "test")[6 if task == "textvqa" else 1]
    assert (sample.question, sample.answers) == (question, answers)


def test_superclevr_s_hint_stays_and_its_image_mark_goes(cpt7: Suite) -> None:
    samples = load_split(cpt7.card("superclevr"), "test")
    hint = "Hint: Please answer the question and provide the final answer at the end.\nQuestion: How many"
    assert all(s.question.startswith(hint) and "<image>" not in s.question for s in samples)
    assert {s.kind for s in load_split(cpt7.card("superclevr"), "train")} == {
        "number",
        "yesno",
        "word",
    }


def test_gold_is_kept_whole(cpt7: Suite) -> None:
    text = load_split(cpt7.card("textvqa"), "test")
    assert all(len(s.annotators) == 10 for s in text)
    assert text[0].annotators[0] == "Stop 0" and text[0].answers == ("unanswerable",)
    choice = load_split(cpt7.card("mmmu"), "test")
    assert choice[0].choices == ("a $5", "Theory's end", "None", "<image 2>")
    assert [len(s.images) for s in choice] == [1, 2, 1, 2, 1, 2, 1]
    assert choice[3].kind == "open" and choice[3].answers == ("12.5",)
    assert {s.category for s in load_split(cpt7.card("pope"), "test")} == {
        "adversarial",
        "popular",
        "random",
    }


def test_a_tie_goes_to_the_first(cpt7: Suite) -> None:
    from cpt_bench.tasks.cpt7.adapters import most_common

    assert most_common(["b", "A", "a", "B"]) == "b"
    assert most_common(["x", "Y", "y"]) == "y"


def prepared(
    card: TaskCard,
    tables: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    split: str = "test",
) -> list[Sample]:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    hub.prepare(card, split, tables)
    return load_split(card, split)


@pytest.mark.slow
def test_mmmu_in_its_thirty_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = TaskCard.model_validate(_resolved(fx.small_card("mmmu", 1, 30, (1, 1))))
    names = card.source.splits["test"].tables[0].configs  # type: ignore[union-attr]
    fx.write_repo(tmp_path, "MMMU/MMMU", {
        (name, "validation"): [fx.mmmu(i, "validation", name)] for i, name in enumerate(names)
    }, fx.MMMU)  # fmt: skip
    samples = prepared(card, tmp_path, monkeypatch, tmp_path)
    assert [s.category for s in samples] == list(names) and len(names) == 30
    assert samples[13].id == "validation_Economics_14" or samples[13].category == names[13]


def _resolved(card: dict[str, Any]) -> dict[str, Any]:
    from cpt_bench.suite.variants import card_data

    return card_data(card, "unified", "neutral", "full")


def test_scienceqa_from_the_full_table_gives_the_same_samples(
    cpt7: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions without an image are left out, and ids do not count them."""
    rows = []
    for i in range(TEST):
        rows += [fx.scienceqa(100 + i, "test", without_image=True), fx.scienceqa(i, "test")]
    fx.write_repo(tmp_path, "derek-thomas/ScienceQA", {("default", "test"): rows}, fx.SCIENCEQA)
    data = _resolved(fx.small_card("scienceqa", TRAIN, TEST, (4, 3)))
    data["source"]["splits"]["test"]["tables"][2]["rows"] = 2 * TEST
    card = TaskCard.model_validate(data)
    samples = prepared(card, tmp_path, monkeypatch, tmp_path)
    facts = read_json(places.folder(card, "test") / "meta.json")
    assert facts["repo"] == "derek-thomas/ScienceQA" and len(facts["passed_over"]) == 2
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    assert [s.id for s in samples] == [f"test-{i:05d}" for i in range(TEST)]
    assert samples[3].question.endswith("directly.") and "Which is number 3?" in samples[3].question


def test_vizwiz_answers_with_confidences_and_suffixed_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Features(
        {
            **fx.VIZWIZ_TRAIN,
            "answers": [{"answer": Value("string"), "answer_confidence": Value("string")}],
        }
    )
    rows = [fx.vizwiz_train(i, "train") for i in range(TRAIN)]
    for row in rows:
        row["answers"] = [{"answer": a, "answer_confidence": "yes"} for a in row["answers"]]
    fx.write_repo(tmp_path, "Multimodal-Fatima/VizWiz_train", {("default", "train"): rows}, kind)
    card = TaskCard.model_validate(_resolved(fx.small_card("vizwiz", TRAIN, TEST, (4, 3))))
    samples = prepared(card, tmp_path, monkeypatch, tmp_path, "train")
    assert samples[1].id == "VizWiz_train_00000001" and samples[1].answers == ("unanswerable",)
    assert len(samples[1].annotators) == 10


@pytest.mark.parametrize("task", [*TASKS, *GENERAL])
def test_the_first_gold_answer_is_right_under_every_protocol(
    cpt7_folder: Path, cpt7_tables: Path, cpt7_data: Path, cpt7: Suite, task: str
) -> None:
    """What supervised training is taught must score: full where there is one gold."""
    from cpt_bench.evaluation.predictions import matcher_of
    from cpt_bench.grading import grade

    for tag in ("unified", "paper", "paper.direct", "paper.nocot", "official"):
        opened = open_suite(f"{cpt7_folder}@{tag}")
        card = opened.card(task)
        hub.prepare(card, "test", cpt7_tables)
        for sample in load_split(card, "test"):
            reply = opened.protocol.target(sample.answers[0])
            if card.grader == "mmlu-pro":
                reply = f"So the answer is ({reply})."
            got = grade(reply, sample, opened.protocol.form, matcher_of(card))
            agreeing = sum(a.lower() == sample.answers[0] for a in sample.annotators)
            soft = card.grader.startswith("vqa")
            assert got.score == pytest.approx(min(1, 0.3 * agreeing) if soft else 1), (
                tag,
                sample.answers,
            )


def test_the_paper_s_context_word_is_in_train_alone(
    cpt7_folder: Path, cpt7_tables: Path, cpt7: Suite
) -> None:
    card = open_suite(f"{cpt7_folder}@paper").card("scienceqa")
    for split in ("train", "test"):
        hub.prepare(card, split, cpt7_tables)
    assert load_split(card, "train")[1].question.startswith("Context: Look at 1.\n")
    assert load_split(card, "test")[1].question.startswith("Look at 1.\n")
    assert load_split(cpt7.card("scienceqa"), "test")[1].question.startswith("Context: ")
