"""Tables that are not what they were when they were published: one clear error each, and nothing half prepared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
from datasets import Dataset

from cpt_bench.errors import CptBenchError
from cpt_bench.sources import hub
from cpt_bench.suite import Suite
from cpt_bench.suite import prepared as places
from tests.support import cpt7_fixtures as fx
from tests.support.cpt7_fixtures import TEST

pytestmark = pytest.mark.usefixtures("cpt7_place")


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
                     "the id '7' occurs more than once"),
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
    name: str, cpt7_tables: Path, cpt7: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, repo, config, split, change, complaint = BREAKS[name]
    shutil.copytree(cpt7_tables / repo, tmp_path / repo)
    for part in ("train", split) if "column" in complaint and config == "default" else (split,):
        fx.rewrite(tmp_path, repo, config, part, change)
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(CptBenchError, match=complaint) as caught:
        hub.prepare(cpt7.card(task), "test", tmp_path)
    assert "\n" not in str(caught.value)
    assert not places.is_prepared(cpt7.card(task), "test")
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
    cpt7_tables: Path,
    cpt7: Suite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(cpt7_tables / "lmms-lab/ScienceQA", tmp_path / "lmms-lab/ScienceQA")
    readme = tmp_path / "lmms-lab/ScienceQA/README.md"
    assert old in readme.read_text()
    readme.write_text(readme.read_text().replace(old, new))
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(CptBenchError, match=complaint) as caught:
        hub.prepare(cpt7.card("scienceqa"), "test", tmp_path)
    assert "lmms-lab-encoder/ScienceQA: no folder" in str(
        caught.value
    )  # every place is accounted for


def test_without_a_network_every_place_is_accounted_for(
    cpt7: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CptBenchError,
        match=r"lmms-lab/POPE: .*; lmms-lab-encoder/POPE: .*give a local copy with --from",
    ):
        hub.prepare(cpt7.card("pope"), "test")


def test_another_list_of_ids_is_found(
    cpt7: Suite, cpt7_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    card = cpt7.card("pope")
    split = card.splits["test"].model_copy(update={"ids": "0" * 64})
    with pytest.raises(CptBenchError, match="the ids are not the published ones"):
        hub.prepare(card.model_copy(update={"splits": {"test": split}}), "test", cpt7_tables)
