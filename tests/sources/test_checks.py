"""Rows that cannot be asked or graded are refused when data are prepared, with the row's id."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from PIL import Image

from cpt_bench.errors import CptBenchError
from cpt_bench.sources import hub, load_split
from cpt_bench.sources.checks import check_sample
from cpt_bench.sources.hub_tables import encoded
from cpt_bench.sources.pictures import Repository, check_picture
from cpt_bench.suite import Sample, Suite
from cpt_bench.suite.origins import HubSplit
from tests.support import cpt7_fixtures as fx
from tests.support.cpt7_fixtures import TEST

pytestmark = pytest.mark.usefixtures("cpt7_place")

Row = dict[str, Any]
PLACES = {
    "pope": ("lmms-lab/POPE", "default", "test"),
    "textvqa": ("lmms-lab/textvqa", "default", "validation"),
    "pathvqa": ("flaviagiammarino/path-vqa", "default", "test"),
    "geometry3k": ("hiyouga/geometry3k", "default", "test"),
    "vizwiz": ("lmms-lab/VizWiz-VQA", "default", "val"),
    "gqa": ("lmms-lab/GQA", "testdev_balanced_images", "testdev"),
    "mmmu": ("lmms-lab/MMMU", "default", "validation"),
    "mmlu_pro": ("TIGER-Lab/MMLU-Pro", "default", "test"),
    "superclevr": ("lmms-lab/LLaVA-OneVision-Data", "Super-CLEVR(MathV360K)", "train"),
}
NO_PICTURE = "the question has no picture"
SYSTEM = [{"from": who, "value": "words"} for who in ("system", "human", "gpt")]

FAULTS: dict[str, tuple[str, Row, str]] = {
    # task, what the first row becomes, complaint
    "no picture, POPE": ("pope", {"image": None}, f"adversarial-1: {NO_PICTURE}"),
    "no picture, TextVQA": ("textvqa", {"image": None}, NO_PICTURE),
    "no picture, PathVQA": ("pathvqa", {"image": None}, f"test-00000: {NO_PICTURE}"),
    "no picture, VizWiz": ("vizwiz", {"image": None}, f"VizWiz_val_00000000: {NO_PICTURE}"),
    "no picture, GQA": ("gqa", {"image": None}, rf"testdev, \w+: {NO_PICTURE}"),
    "no picture, Super-CLEVR": ("superclevr", {"image": None}, f"row-00000: {NO_PICTURE}"),
    "no pictures, MMMU": ("mmmu", {f"image_{i}": None for i in range(1, 8)}, f"_1: {NO_PICTURE}"),
    "no pictures, Geometry3K": ("geometry3k", {"images": []}, f"test-00000: {NO_PICTURE}"),
    "J of four options": ("mmlu_pro", {"answer": "J", "options": ["a", "b", "c", "d"]},
                          "the gold answer 'J' names none of its 4 options"),
    "no gold letter": ("mmlu_pro", {"answer": ""}, "a gold answer is empty"),
    "a number for a letter": ("mmlu_pro", {"answer": "1"}, "the gold answer '1' names none of"),
    "a hidden gold, MMMU": ("mmmu", {"answer": "?"}, r"row 0 \(validation_Art_Theory_1\).*its answer is '\?'"),
    "a hidden gold, MMLU-Pro": ("mmlu_pro", {"answer": "?"}, r"the gold answer '\?' names none of"),
    "a hidden gold, POPE": ("pope", {"answer": "?"}, r"the gold answer '\?' is neither yes nor no"),
    "E of four, MMMU": ("mmmu", {"answer": "E"}, "the gold answer 'E' names none of its 4 options"),
    "a letter in a dress": ("mmlu_pro", {"answer": "(B)"}, r"the gold answer '\(B\)' names none"),
    "neither yes nor no": ("pope", {"answer": "1"}, "the gold answer '1' is neither yes nor no"),
    "an empty answer": ("pathvqa", {"answer": "  "}, "a gold answer is empty"),
    "an empty question": ("pathvqa", {"question": " "}, "the question is empty"),
    "nobody answered": ("textvqa", {"answers": []}, "the list of answers is empty"),
    "a system turn": ("superclevr", {"conversations": SYSTEM}, "3 turns of conversation"),
    "one turn": ("superclevr", {"conversations": SYSTEM[1:2]}, "1 turns of conversation"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_a_row_that_cannot_be_asked_is_refused(
    what: str, cpt7: Suite, cpt7_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, change, complaint = FAULTS[what]
    repo, config, split = PLACES[task]
    tables = tmp_path / "tables"
    shutil.copytree(cpt7_tables / repo, tables / repo)

    def first_row(rows: Dataset) -> Dataset:
        plain = encoded(rows).to_list()
        return Dataset.from_list([{**plain[0], **change}, *plain[1:]], features=rows.features)

    fx.rewrite(tables, repo, config, split, first_row)
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(CptBenchError, match=complaint) as caught:
        hub.prepare(cpt7.card(task), "test", tables)
    assert "\n" not in str(caught.value)
    assert not [*(tmp_path / "data" / task).glob("*")], "nothing half prepared"


def sample(**changes: Any) -> Sample:
    usual = {"id": "s1", "question": "Which?", "images": (b"x",), "answers": ("B",),
             "kind": "letter", "choices": ("this", "that")}  # fmt: skip
    return Sample.model_validate({**usual, **changes})


PICTURES = HubSplit.model_validate(
    {"tables": [{"repo": "a/b", "split": "test"}], "columns": {"image": "image"}}
)
WORDS = PICTURES.model_copy(update={"columns": {"question": "string"}})


def test_what_a_card_may_say_of_pictures() -> None:
    check_sample(sample(), PICTURES, ("letter",), "a/b")
    check_sample(sample(images=()), WORDS, ("letter",), "a/b")
    free = PICTURES.model_copy(update={"no_picture": True})
    check_sample(sample(images=()), free, ("letter",), "a/b")
    with pytest.raises(CptBenchError, match="a/b, s1: the question has no picture"):
        check_sample(sample(images=()), PICTURES, ("letter",), "a/b")
    joined = WORDS.model_copy(update={"join": object()})
    with pytest.raises(CptBenchError, match="no picture"):
        check_sample(sample(images=()), joined, ("letter",), "a/b")
    with pytest.raises(CptBenchError, match="of kind 'letter'; the card has yesno, word"):
        check_sample(sample(), PICTURES, ("yesno", "word"), "a/b")


def test_a_card_without_the_new_key_is_the_same_card() -> None:
    assert "no_picture" not in PICTURES.model_dump()
    assert PICTURES.model_copy(update={"no_picture": True}).model_dump()["no_picture"]


# ------------------------------------------------------------------------------- pictures by path


def png(width: int = 8, height: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (width % 256, height % 256, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_a_picture_by_its_path_is_the_repository_s(
    cpt7: Suite, cpt7_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of that name in the folder of the command is another picture."""
    tables = tmp_path / "tables"
    shutil.copytree(cpt7_tables / "lmms-lab/POPE", tables / "lmms-lab/POPE")
    (file,) = (tables / "lmms-lab/POPE/default").glob("*.parquet")
    table = pq.read_table(file)
    paths = [{"bytes": None, "path": f"images/{i}.png"} for i in range(TEST)]
    column = table.schema.get_field_index("image")
    field = table.schema.field("image")
    pq.write_table(table.set_column(column, field, pa.array(paths, field.type)), file)
    elsewhere = tmp_path / "elsewhere"
    for folder, size in ((tables / "lmms-lab/POPE/images", 8), (elsewhere / "images", 9)):
        folder.mkdir(parents=True)
        for i in range(TEST):
            (folder / f"{i}.png").write_bytes(png(size))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))
    card = cpt7.card("pope")
    unknown = card.splits["test"].model_copy(update={"sha256": None})
    card = card.model_copy(update={"splits": {"test": unknown}})
    hub.prepare(card, "test", tables)
    assert load_split(card, "test")[0].images[0] == png(8)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("images/none.png", "the picture 'images/none.png' is not in the data set's folder"),
        ("../secret.png", "is not in the data set's folder"),
        ("images/../../secret.png", "is not in the data set's folder"),
        ("/etc/hostname", "a path outside the data set"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a/b/images").mkdir(parents=True)
    (tmp_path / "a/secret.png").write_bytes(png())
    (tmp_path / "a/b/images/1.png").write_bytes(png())
    home = Repository("a/b", None, tmp_path, "test")
    assert home.picture("images/1.png") == png()
    assert home.picture(str(tmp_path / "a/b/images/1.png")) == png()
    with pytest.raises(CptBenchError, match=complaint) as caught:
        home.picture(path)
    assert str(caught.value).startswith("a/b, split test: ")


# ---------------------------------------------------------------------------------- thin pictures


@pytest.mark.parametrize("size", [(400, 1), (1, 201), (4020, 20), (804, 4)])
def test_a_picture_that_no_processor_takes_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(CptBenchError, match=rf"it: the picture is {size[0]} x {size[1]}: one side"):
        check_picture(png(*size), "it")


@pytest.mark.parametrize("size", [(200, 1), (1, 200), (8, 8), (4000, 20)])
def test_a_thin_one_that_is_taken(size: tuple[int, int]) -> None:
    check_picture(png(*size), "it")
