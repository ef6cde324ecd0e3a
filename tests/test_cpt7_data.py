"""The ten loaders through the hub's own call, on tables with the hub's schemas; and what breaks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from datasets import Dataset, Features, Value

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json, write_json
from cpt_bench.images import decode
from cpt_bench.sources import hub, load_split, require_prepared, split_digest
from cpt_bench.sources import store as store_of
from cpt_bench.sources.cache import ids_digest
from cpt_bench.suite import Sample, Suite, TaskCard, open_suite
from cpt_bench.suite import prepared as places
from cpt_bench.suite.origins import Draw, Hub
from tests import cpt7_fixtures as fx

Cli = Callable[..., subprocess.CompletedProcess[str]]

TRAIN, TEST = 8, 7
TASKS = ["scienceqa", "textvqa", "vizwiz", "gqa", "geometry3k", "pathvqa", "superclevr"]
GENERAL = ["mmmu", "mmlu_pro", "pope"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fx.build_hub(tmp_path_factory.mktemp("hub"), TRAIN, TEST)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fx.build_suite(tmp_path_factory.mktemp("suite") / "cpt7", "none", TRAIN, TEST, (4, 3))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _place(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(data))


@pytest.fixture(scope="module")
def suite(tables: Path, folder: Path, data: Path) -> Suite:
    """cpt7 with the fixtures' counts, prepared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPTBENCH_DATA", str(data))
        opened = open_suite(str(folder))
        for card in opened.cards.values():
            for split in card.splits:
                hub.prepare(card, split, tables)
        return open_suite(str(folder))


# ----------------------------------------------------------------------------- reading


@pytest.mark.parametrize("task", [*TASKS, *GENERAL])
def test_every_table_is_read_with_its_pictures_as_rgb(suite: Suite, task: str) -> None:
    card = suite.card(task)
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


def test_pictures_come_in_every_awkward_mode(suite: Suite) -> None:
    """Or the test above would show nothing."""
    import io

    from PIL import Image

    modes = {
        (image.mode, image.format)
        for sample in load_split(suite.card("textvqa"), "train")
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
def test_questions_are_in_the_publication_s_words(suite: Suite, task: str) -> None:
    question, answers = PROMPTS[task]
    sample = load_split(suite.card(task), "test")[6 if task == "textvqa" else 1]
    assert (sample.question, sample.answers) == (question, answers)


def test_superclevr_s_hint_stays_and_its_image_mark_goes(suite: Suite) -> None:
    samples = load_split(suite.card("superclevr"), "test")
    hint = "Hint: Please answer the question and provide the final answer at the end.\nQuestion: How many"
    assert all(s.question.startswith(hint) and "<image>" not in s.question for s in samples)
    assert {s.kind for s in load_split(suite.card("superclevr"), "train")} == {
        "number",
        "yesno",
        "word",
    }


def test_gold_is_kept_whole(suite: Suite) -> None:
    text = load_split(suite.card("textvqa"), "test")
    assert all(len(s.annotators) == 10 for s in text)
    assert text[0].annotators[0] == "Stop 0" and text[0].answers == ("unanswerable",)
    choice = load_split(suite.card("mmmu"), "test")
    assert choice[0].choices == ("a $5", "Theory's end", "None", "<image 2>")
    assert [len(s.images) for s in choice] == [1, 2, 1, 2, 1, 2, 1]
    assert choice[3].kind == "open" and choice[3].answers == ("12.5",)
    assert {s.category for s in load_split(suite.card("pope"), "test")} == {
        "adversarial",
        "popular",
        "random",
    }


def test_a_tie_goes_to_the_first(suite: Suite) -> None:
    from cpt_bench.tasks.cpt7.adapters import most_common

    assert most_common(["b", "A", "a", "B"]) == "b"
    assert most_common(["x", "Y", "y"]) == "y"


# ------------------------------------------------------------------------ other tables


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
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


# --------------------------------------------------------------------- what breaks them


def renamed(old: str, new: str) -> Callable[[Dataset], Dataset]:
    return lambda rows: rows.rename_column(old, new)


BREAKS: dict[str, tuple[str, str, str, str, Callable[[Dataset], Dataset], str]] = {
    # task, repository, config, split, change, complaint
    "renamed column": ("textvqa", "lmms-lab/textvqa", "default", "validation", renamed("answers", "answer"),
                       r"lmms-lab/textvqa: no column 'answers' \(there is: image_id, "),
    "renamed picture": ("pathvqa", "flaviagiammarino/path-vqa", "default", "test", renamed("image", "picture"),
                        "no column 'image'"),
    "columns unlike the other split's": ("geometry3k", "hiyouga/geometry3k", "default", "test", renamed("problem", "question"),
                                          "DatasetGenerationError: .*, caused by CastError: Couldn't cast .*question: string"),
    "another type": ("pathvqa", "flaviagiammarino/path-vqa", "default", "test",
                     lambda rows: rows.remove_columns("answer").add_column("answer", list(range(len(rows)))),
                     "column 'answer' is int, not string"),
    "a row too few": ("geometry3k", "hiyouga/geometry3k", "default", "test", lambda rows: rows.select(range(TEST - 1)),
                      f"split test has {TEST - 1} rows, not {TEST}"),
    "a choice that is none": ("scienceqa", "lmms-lab/ScienceQA", "ScienceQA-IMG", "test",
                              lambda rows: rows.map(lambda row: {"answer": 9}, features=rows.features),
                              "lmms-lab/ScienceQA, split test: row 0 makes no sample .*answer 9 is none of 2 choices"),
    "one id twice": ("textvqa", "lmms-lab/textvqa", "default", "validation",
                     lambda rows: rows.map(lambda row: {"question_id": 7}, features=rows.features),
                     "the id '7' is there more than once"),
    "a picture without its join": ("gqa", "lmms-lab/GQA", "testdev_balanced_images", "testdev",
                                   lambda rows: rows.select([0, 1]), r"row 2 names the picture 'n2', which is not in testdev_balanced_images"),
    "a broken picture": ("pope", "lmms-lab/POPE", "default", "test",
                         lambda rows: Dataset.from_list([{**row, "image": {"bytes": b"\x89PNG broken", "path": None}} for row in make_pope()], features=fx.POPE),
                         "lmms-lab/POPE, adversarial-1: the picture is broken"),
}  # fmt: skip


def make_pope() -> list[dict[str, Any]]:
    return fx.make(fx.pope, "test", TEST)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_table_is_one_clear_error(
    name: str, tables: Path, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, repo, config, split, change, complaint = BREAKS[name]
    shutil.copytree(tables / repo, tmp_path / repo)
    for part in ("train", split) if "column" in complaint and config == "default" else (split,):
        fx.rewrite(tmp_path, repo, config, part, change)
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(CptBenchError, match=complaint) as caught:
        hub.prepare(suite.card(task), "test", tmp_path)
    assert "\n" not in str(caught.value)
    assert not places.is_prepared(suite.card(task), "test")
    assert not list((tmp_path / "data").rglob("*.building"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("split: test", "split: exam", 'Unknown split "test"'),
        ("config_name: ScienceQA-IMG", "config_name: ScienceQA", "BuilderConfig 'ScienceQA-IMG' not found"),
    ],
)  # fmt: skip
def test_a_missing_split_or_config_is_named(
    old: str,
    new: str,
    complaint: str,
    tables: Path,
    suite: Suite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(tables / "lmms-lab/ScienceQA", tmp_path / "lmms-lab/ScienceQA")
    readme = tmp_path / "lmms-lab/ScienceQA/README.md"
    assert old in readme.read_text()
    readme.write_text(readme.read_text().replace(old, new))
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(CptBenchError, match=complaint) as caught:
        hub.prepare(suite.card("scienceqa"), "test", tmp_path)
    assert "lmms-lab-encoder/ScienceQA: no folder" in str(
        caught.value
    )  # every place is accounted for


def test_without_a_network_every_place_is_accounted_for(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CptBenchError,
        match=r"lmms-lab/POPE: .*; lmms-lab-encoder/POPE: .*give a local copy with --from",
    ):
        hub.prepare(suite.card("pope"), "test")


# ------------------------------------------------------------------- the cache on disk


def test_preparing_again_reads_nothing(suite: Suite, tmp_path: Path) -> None:
    hub.prepare(suite.card("pope"), "test", tmp_path)  # an empty folder: nothing to read from


def test_changed_words_and_changed_pictures_are_found(
    suite: Suite, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    card = suite.card("pathvqa").model_copy(
        update={"splits": {"test": suite.card("pathvqa").splits["test"]}}
    )
    hub.prepare(card, "test", tables)
    place = places.folder(card, "test")
    words = (place / "samples.jsonl").read_text()
    (place / "samples.jsonl").write_text(words.replace("liver", "heart", 1))
    with pytest.raises(CptBenchError, match="the samples differ from the published ones"):
        load_split(card, "test")
    (place / "samples.jsonl").write_text(words)
    pictures = (place / "images.arrow").read_bytes()
    spot = pictures.index(b"IHDR")
    (place / "images.arrow").write_bytes(pictures[:spot] + b"XHDR" + pictures[spot + 4 :])
    store_of._open.cache_clear()
    with pytest.raises(CptBenchError, match="is damaged or missing"):
        [bytes_ for sample in load_split(card, "test") for bytes_ in sample.images]
    store_of._open.cache_clear()


def test_data_that_change_at_their_source_are_found(
    suite: Suite, tables: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card without a hash: the first preparation is the reference, written down in lock.json."""
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    card = open_suite(str(folder)).card("pathvqa")
    assert card.splits["test"].sha256 is None
    hub.prepare(card, "test", tables)
    first = places.recorded(card, "test")
    shutil.rmtree(places.folder(card, "test"))
    repo = "flaviagiammarino/path-vqa"
    shutil.copytree(tables / repo, tmp_path / repo)
    fx.rewrite(
        tmp_path,
        repo,
        "default",
        "test",
        lambda rows: rows.map(lambda row: {"answer": "no"}, features=rows.features),
    )
    with pytest.raises(
        CptBenchError, match=r"differ from those first prepared.*delete its line in .*lock\.json"
    ):
        hub.prepare(card, "test", tmp_path)
    write_json(tmp_path / "data/lock.json", {})
    hub.prepare(card, "test", tmp_path)
    assert places.recorded(card, "test") != first


def test_a_fingerprint_holds_the_prepared_data(
    suite: Suite, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert suite.fingerprint() == open_suite(str(folder)).fingerprint()
    assert suite.card("gqa").splits["test"].sha256
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    assert open_suite(str(folder)).fingerprint() != suite.fingerprint()


def test_the_hash_is_that_of_the_samples(suite: Suite) -> None:
    card = suite.card("geometry3k")
    assert split_digest(load_split(card, "test")) == card.splits["test"].sha256
    choice = suite.card("mmlu_pro").model_copy(update={"instruction": ""})
    assert split_digest(load_split(choice, "test")) == choice.splits["test"].sha256


def test_pictures_are_shared_and_read_late(suite: Suite) -> None:
    samples = load_split(suite.card("pathvqa"), "train")
    assert samples[0].images == samples[1].images and samples[0].images != samples[2].images
    assert not isinstance(samples[0].images, tuple) and len(samples[0].images[:1]) == 1
    store = store_of._open(places.folder(suite.card("pathvqa"), "train") / "images.arrow")
    assert len(store.places) == TRAIN // 2
    import pickle

    assert pickle.loads(pickle.dumps(samples[0].images))[0] == samples[0].images[0]


def test_scoring_needs_neither_datasets_nor_arrow(suite: Suite, folder: Path) -> None:
    code = f"""
import sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "datasets", "pyarrow", "transformers"}}:
            raise ImportError(name + " was imported")
sys.meta_path.insert(0, Ban())
from cpt_bench.suite import open_suite
from cpt_bench.sources import load_split
from cpt_bench.evaluation.predictions import graded
suite = open_suite({str(folder)!r})
for name in ("textvqa", "vizwiz", "pope", "mmmu"):
    card = suite.card(name)
    samples = load_split(card, "test")
    rows = [{{"id": s.id, "reply": suite.protocol.target(s.answers[0]), "tokens": 1}} for s in samples]
    got = graded(rows, card, samples, suite.protocol)
    print(name, sum(r["score"] for r in got) > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [
        "textvqa",
        "True",
        "vizwiz",
        "True",
        "pope",
        "True",
        "mmmu",
        "True",
    ], done.stderr


@pytest.mark.parametrize("task", [*TASKS, *GENERAL])
def test_the_first_gold_answer_is_right_under_every_protocol(
    folder: Path, tables: Path, data: Path, suite: Suite, task: str
) -> None:
    """What supervised training is taught must score: full where there is one gold."""
    from cpt_bench.evaluation.predictions import matcher_of
    from cpt_bench.grading import grade

    for tag in ("unified", "paper", "paper.direct", "paper.nocot", "official"):
        opened = open_suite(f"{folder}@{tag}")
        card = opened.card(task)
        hub.prepare(card, "test", tables)
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


def test_an_interrupted_preparation_leaves_nothing_and_goes_on(
    suite: Suite, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    card, checked = suite.card("vizwiz"), hub._check_picture
    seen: list[str] = []

    def third_time(data: bytes, where: str) -> None:
        seen.append(where)
        if len(seen) == 3:
            raise KeyboardInterrupt
        checked(data, where)

    monkeypatch.setattr(hub, "_check_picture", third_time)
    with pytest.raises(KeyboardInterrupt):
        hub.prepare(card, "test", tables)
    assert not places.is_prepared(card, "test")
    hub.prepare(card, "test", tables)
    assert places.recorded(card, "test") == card.splits["test"].sha256


def test_fetched_data_are_hidden_from_trainers(suite: Suite, data: Path) -> None:
    from types import SimpleNamespace

    from cpt_bench.run.stages import hidden

    assert data in hidden(SimpleNamespace(suite=suite), [])  # type: ignore[arg-type]


# ------------------------------------------------------------------- tiers and protocols


def test_mini_is_part_of_full_and_the_splits_stay_apart(
    folder: Path, tables: Path, suite: Suite
) -> None:
    mini = open_suite(f"{folder}@mini")
    for name, card in mini.cards.items():
        for split in card.splits:
            hub.prepare(card, split, tables)
            ids = [s.id for s in load_split(card, split)]
            assert len(ids) == (4 if split == "train" else 3)
            if name != "gqa" or split == "test":
                assert set(ids) <= {s.id for s in load_split(suite.card(name), split)}
    whole = {s: [x.id for x in load_split(suite.card("superclevr"), s)] for s in ("train", "test")}
    assert not set(whole["train"]) & set(whole["test"])
    assert sorted(whole["train"] + whole["test"]) == [f"row-{i:05d}" for i in range(TRAIN + TEST)]
    # A shorter draw is a prefix of a longer one: --limit takes a fair sample.
    short = [x.id for x in load_split(mini.card("superclevr"), "train")]
    assert whole["train"][:4] == short
    assert [x.id for x in load_split(mini.card("gqa"), "train")] == [
        x.id for x in load_split(suite.card("gqa"), "train")
    ][:4]


def test_the_rule_of_a_draw_is_what_the_card_says() -> None:
    from hashlib import sha256

    known = [(f"row-{i}", i, i) for i in range(50)]
    ranked = sorted(known, key=lambda e: sha256(f"7\0{e[0]}".encode()).digest())
    assert hub.drawn(known, Draw(seed=7), 10) == ranked[:10]
    assert hub.drawn(known, Draw(seed=7, skip=10), 10) == ranked[10:20]
    assert hub.drawn(known, Draw(seed=8), 10) != ranked[:10]


def test_published_id_lists_are_those_of_the_rule() -> None:
    from cpt_bench.tasks.cpt7.publish import known_ids, listed

    checked = 0
    for tier in ("full", "mini"):
        suite = open_suite(f"cpt7@{tier}")
        for name, card in suite.cards.items():
            for split, published in card.splits.items():
                ids = known_ids(name, split)
                if ids is None:
                    continue
                assert published.ids == ids_digest(listed(ids, published)), (
                    name,
                    split,
                    tier,
                )
                checked += 1
    assert checked >= 16


def test_published_id_lists_of_mmlu_pro_and_mmmu_are_of_the_published_ids() -> None:
    import json
    import zipfile

    published = Path(__file__).parents[2] / "shared/data"
    if not published.is_dir():
        pytest.skip("the published outputs are not here")
    with zipfile.ZipFile(published / "mmlu_pro/model_outputs_Llama-2-7b-hf_5shots.zip") as archive:
        rows = json.loads(archive.read(archive.namelist()[0]))
    ids = {"mmlu_pro": [str(row["question_id"]) for row in rows],
           "mmmu": list(read_json(published / "mmmu/answer_dict_val.json"))}  # fmt: skip
    from cpt_bench.tasks.cpt7.publish import listed

    for name, known in ids.items():
        split = open_suite("cpt7@mini").card(name).splits["test"]
        assert split.ids == ids_digest(listed(known, split))


def test_another_list_of_ids_is_found(
    suite: Suite, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    card = suite.card("pope")
    split = card.splits["test"].model_copy(update={"ids": "0" * 64})
    with pytest.raises(CptBenchError, match="the ids are not the published ones"):
        hub.prepare(card.model_copy(update={"splits": {"test": split}}), "test", tables)


def test_the_paper_s_prompts_word_for_word() -> None:
    paper = open_suite("cpt7@paper")
    assert paper.protocol.prompt("Q") == (
        "Q You FIRST think about the reasoning process as an internal monologue and then provide the final "
        "answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST "
        "BE put in \\boxed{}."
    )  # fmt: skip
    assert (
        open_suite("cpt7@paper.nocot").protocol.prompt("Q")
        == "Q You MUST provide the final answer directly."
    )
    assert paper.protocol.decoding.temperature == 0.5 and paper.protocol.reward.accuracy == 0.9
    assert paper.card("pathvqa").instruction == "" and paper.card("textvqa").instruction
    direct = open_suite("cpt7@paper.direct")
    assert (
        direct.card("geometry3k").instruction
        == "\nAnswer the question using a single word or phrase."
    )
    assert (direct.card("vizwiz").grader, direct.protocol.form.kind) == ("exact-case", "whole")
    assert direct.protocol.target("B") == "B" and paper.protocol.target("B") == "\\boxed{B}"
    assert direct.protocol.decoding.temperature == 0 and direct.protocol.reward.format == 0


def test_the_paper_s_context_word_is_in_train_alone(
    folder: Path, tables: Path, suite: Suite
) -> None:
    card = open_suite(f"{folder}@paper").card("scienceqa")
    for split in ("train", "test"):
        hub.prepare(card, split, tables)
    assert load_split(card, "train")[1].question.startswith("Context: Look at 1.\n")
    assert load_split(card, "test")[1].question.startswith("Look at 1.\n")
    assert load_split(suite.card("scienceqa"), "test")[1].question.startswith("Context: ")


@pytest.mark.parametrize(
    ("tag", "label", "style", "tier"),
    [
        ("cpt7", "cpt7", "neutral", "full"),
        ("cpt7@unified", "cpt7", "neutral", "full"),
        ("cpt7@full", "cpt7", "neutral", "full"),
        ("cpt7@mini", "cpt7-mini", "neutral", "mini"),
        ("cpt7@paper.reasoning", "cpt7-paper", "reasoning", "full"),
        ("cpt7@mini+paper.direct", "cpt7-paper-direct-mini", "direct", "mini"),
        ("cpt7@unified.direct", "cpt7-unified-direct", "direct", "full"),
    ],
)  # fmt: skip
def test_variants_by_name(tag: str, label: str, style: str, tier: str) -> None:
    from cpt_bench.suite import load_suite

    suite = open_suite(tag)
    assert (suite.label, suite.protocol.style, suite.tier) == (label, style, tier)
    assert load_suite(suite.place).fingerprint() == suite.fingerprint()  # what a worker opens


@pytest.mark.parametrize(
    ("tag", "complaint"),
    [
        ("cpt7@papr", "no protocol or tier is called 'papr'. Did you mean 'paper'?"),
        ("cpt7@paper+unified", "names two tiers or two protocols"),
        ("cpt7@paper.cot", "protocol paper has no style 'cot'"),
        ("nano@mini", "no protocol or tier is called 'mini'"),
    ],
)
def test_an_unknown_variant_is_named(tag: str, complaint: str) -> None:
    with pytest.raises(CptBenchError, match=complaint):
        open_suite(tag)


def test_cpt7_has_the_paper_s_sequence_and_sizes() -> None:
    suite = open_suite("cpt7")
    assert list(suite.sequence) == TASKS and list(suite.general) == GENERAL
    sizes = {n: [suite.card(n).splits[s].n for s in ("train", "test")] for n in TASKS}
    assert sizes == {
        "scienceqa": [6218, 2017], "textvqa": [34602, 5000], "vizwiz": [20523, 4319], "gqa": [80000, 12578],
        "geometry3k": [2101, 601], "pathvqa": [19654, 6719], "superclevr": [8000, 642],
    }  # fmt: skip
    assert [suite.card(n).splits["test"].n for n in GENERAL] == [900, 12032, 9000]
    mini = open_suite("cpt7@mini")
    assert {c.splits["test"].n for c in mini.cards.values()} == {240}
    assert {mini.card(n).splits["train"].n for n in TASKS} == {2000}
    for card in suite.cards.values():
        assert isinstance(card.source, Hub) and card.licence and card.citation and card.notes


def test_a_card_that_uses_nothing_new_is_the_same_card() -> None:
    """nano's fingerprint must not move: runs made before would no longer be scorable."""
    dump = open_suite("nano").model_dump(mode="json")
    assert "tier" not in dump and "kind" not in dump["protocol"]["form"]
    assert set(dump["protocol"]["decoding"]) == {"max_new_tokens"}
    card = dump["cards"]["science"]
    assert set(card["splits"]["test"]) == {"n", "sha256"} and set(card["source"]) == {
        "kind",
        "target",
        "options",
    }
    assert not {"instruction", "notes"} & set(card)


# ----------------------------------------------------------------------------- commands


def test_commands_say_what_is_there_and_what_is_missing(
    cli: Cli, tables: Path, folder: Path, tmp_path: Path
) -> None:
    import os

    env = {**os.environ, "CPTBENCH_DATA": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1"}
    partial = tmp_path / "partial"
    for repo in ("lmms-lab/POPE", "hiyouga/geometry3k"):
        shutil.copytree(tables / repo, partial / repo)
    tasks = ["--task", "pope", "--task", "geometry3k", "--task", "pathvqa"]
    done = cli("data", "prepare", "--suite", folder, "--from", partial, *tasks, env=env)
    assert done.returncode == 2
    assert (
        "pathvqa/train" in done.stderr
        and f"no folder {partial}/flaviagiammarino/path-vqa" in done.stderr
    )
    assert "not prepared: pathvqa/train, pathvqa/test. What was prepared is saved" in done.stderr
    status = cli("data", "status", "--suite", folder, *tasks, env=env)
    assert (
        status.returncode == 1
        and status.stdout.count("MISSING") == 2
        and "lmms-lab/POPE" in status.stdout
    )
    done = cli("data", "prepare", "--suite", folder, "--from", tables, *tasks, env=env)
    assert (
        done.returncode == 0
        and done.stdout.count(" there ") == 3
        and done.stdout.count(" made ") == 2
    )
    shown = cli("show", f"{folder}@paper/gqa", "--samples", "1", env=env)
    assert "grader   mathruler" in shown.stdout and "gqa is not prepared" in shown.stderr


def test_a_run_says_first_what_is_not_prepared(cli: Cli, folder: Path, tmp_path: Path) -> None:
    import os

    env = {**os.environ, "CPTBENCH_DATA": str(tmp_path / "data")}
    run = cli("run", "--trainer", "sft", "--suite", folder, "--tier", "mini", env=env)
    assert run.returncode == 2 and "not prepared: scienceqa/train" in run.stderr
    assert f"cptbench data prepare --suite {folder}@mini" in run.stderr
    assert not (tmp_path / "runs").exists()


def test_a_suite_that_makes_its_own_samples_has_nothing_to_prepare() -> None:
    from cpt_bench.cli.data import _wanted

    with pytest.raises(CptBenchError, match="there is nothing to prepare"):
        _wanted("nano", None, None, None)


def test_what_is_not_prepared_is_said_before_anything_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    suite = open_suite(str(folder))
    with pytest.raises(
        CptBenchError,
        match=r"not prepared: scienceqa/train, .*Run: cptbench data prepare --suite x",
    ):
        require_prepared(suite, "x")
    with pytest.raises(CptBenchError, match="the test split of gqa is not prepared"):
        load_split(suite.card("gqa"), "test")
    require_prepared(open_suite("nano"), "nano")
