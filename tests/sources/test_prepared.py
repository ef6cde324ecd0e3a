"""Prepared data on disk: found when changed, shared, read late, whole or absent, and drawn by rule."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("datasets")
from cpt_bench.errors import CptBenchError
from cpt_bench.files import write_json
from cpt_bench.sources import hub, load_split, require_prepared, split_digest
from cpt_bench.sources import store as store_of
from cpt_bench.suite import Suite, open_suite
from cpt_bench.suite import prepared as places
from cpt_bench.suite.origins import Draw
from tests.support import cpt7_fixtures as fx
from tests.support.cpt7_fixtures import TEST, TRAIN

pytestmark = pytest.mark.usefixtures("cpt7_place")


def test_preparing_again_reads_nothing(cpt7: Suite, tmp_path: Path) -> None:
    hub.prepare(cpt7.card("pope"), "test", tmp_path)  # an empty folder: nothing to read from


def test_changed_words_and_changed_pictures_are_found(
    cpt7: Suite, cpt7_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    card = cpt7.card("pathvqa").model_copy(
        update={"splits": {"test": cpt7.card("pathvqa").splits["test"]}}
    )
    hub.prepare(card, "test", cpt7_tables)
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
    cpt7: Suite,
    cpt7_tables: Path,
    cpt7_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A card without a hash: the first preparation is the reference, written down in lock.json."""
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    card = open_suite(str(cpt7_folder)).card("pathvqa")
    assert card.splits["test"].sha256 is None
    hub.prepare(card, "test", cpt7_tables)
    first = places.recorded(card, "test")
    shutil.rmtree(places.folder(card, "test"))
    repo = "flaviagiammarino/path-vqa"
    shutil.copytree(cpt7_tables / repo, tmp_path / repo)
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
    cpt7: Suite, cpt7_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cpt7.fingerprint() == open_suite(str(cpt7_folder)).fingerprint()
    assert cpt7.card("gqa").splits["test"].sha256
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    assert open_suite(str(cpt7_folder)).fingerprint() != cpt7.fingerprint()


def test_the_hash_is_that_of_the_samples(cpt7: Suite) -> None:
    card = cpt7.card("geometry3k")
    assert split_digest(load_split(card, "test")) == card.splits["test"].sha256
    choice = cpt7.card("mmlu_pro").model_copy(update={"instruction": ""})
    assert split_digest(load_split(choice, "test")) == choice.splits["test"].sha256


def test_pictures_are_shared_and_read_late(cpt7: Suite) -> None:
    samples = load_split(cpt7.card("pathvqa"), "train")
    assert samples[0].images == samples[1].images and samples[0].images != samples[2].images
    assert not isinstance(samples[0].images, tuple) and len(samples[0].images[:1]) == 1
    store = store_of._open(places.folder(cpt7.card("pathvqa"), "train") / "images.arrow")
    assert len(store.places) == TRAIN // 2
    import pickle

    assert pickle.loads(pickle.dumps(samples[0].images))[0] == samples[0].images[0]


def test_scoring_needs_neither_datasets_nor_arrow(cpt7: Suite, cpt7_folder: Path) -> None:
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
suite = open_suite({str(cpt7_folder)!r})
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


def test_an_interrupted_preparation_leaves_nothing_and_goes_on(
    cpt7: Suite, cpt7_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    card, checked = cpt7.card("vizwiz"), hub.check_picture
    seen: list[str] = []

    def third_time(data: bytes, where: str) -> None:
        seen.append(where)
        if len(seen) == 3:
            raise KeyboardInterrupt
        checked(data, where)

    monkeypatch.setattr(hub, "check_picture", third_time)
    with pytest.raises(KeyboardInterrupt):
        hub.prepare(card, "test", cpt7_tables)
    assert not places.is_prepared(card, "test")
    hub.prepare(card, "test", cpt7_tables)
    assert places.recorded(card, "test") == card.splits["test"].sha256


def test_fetched_data_are_hidden_from_trainers(cpt7: Suite, cpt7_data: Path) -> None:
    from types import SimpleNamespace

    from cpt_bench.run.layout import hidden

    assert cpt7_data in hidden(SimpleNamespace(suite=cpt7), [])  # type: ignore[arg-type]


def test_mini_is_part_of_full_and_the_splits_stay_apart(
    cpt7_folder: Path, cpt7_tables: Path, cpt7: Suite
) -> None:
    mini = open_suite(f"{cpt7_folder}@mini")
    for name, card in mini.cards.items():
        for split in card.splits:
            hub.prepare(card, split, cpt7_tables)
            ids = [s.id for s in load_split(card, split)]
            assert len(ids) == (4 if split == "train" else 3)
            if name != "gqa" or split == "test":
                assert set(ids) <= {s.id for s in load_split(cpt7.card(name), split)}
    whole = {s: [x.id for x in load_split(cpt7.card("superclevr"), s)] for s in ("train", "test")}
    assert not set(whole["train"]) & set(whole["test"])
    assert sorted(whole["train"] + whole["test"]) == [f"row-{i:05d}" for i in range(TRAIN + TEST)]
    # A shorter draw is a prefix of a longer one: --limit takes a fair sample.
    short = [x.id for x in load_split(mini.card("superclevr"), "train")]
    assert whole["train"][:4] == short
    assert [x.id for x in load_split(mini.card("gqa"), "train")] == [
        x.id for x in load_split(cpt7.card("gqa"), "train")
    ][:4]


def test_the_rule_of_a_draw_is_what_the_card_says() -> None:
    from hashlib import sha256

    known = [(f"row-{i}", i, i) for i in range(50)]
    ranked = sorted(known, key=lambda e: sha256(f"7\0{e[0]}".encode()).digest())
    assert hub.drawn(known, Draw(seed=7), 10) == ranked[:10]
    assert hub.drawn(known, Draw(seed=7, skip=10), 10) == ranked[10:20]
    assert hub.drawn(known, Draw(seed=8), 10) != ranked[:10]


def test_what_is_not_prepared_is_said_before_anything_starts(
    cpt7_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    suite = open_suite(str(cpt7_folder))
    with pytest.raises(
        CptBenchError,
        match=r"not prepared: scienceqa/train, .*Run: cptbench data prepare --suite x",
    ):
        require_prepared(suite, "x")
    with pytest.raises(CptBenchError, match="the test split of gqa is not prepared"):
        load_split(suite.card("gqa"), "test")
    require_prepared(open_suite("nano"), "nano")
