"""Folders with odd names are found, and nothing beside them; a full disk is one line."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets")

from cpt_bench.errors import CptBenchError
from cpt_bench.sources import hub
from cpt_bench.sources.hub_tables import load
from cpt_bench.sources.places import is_full


@pytest.mark.parametrize(
    "name",
    ["hub", "hub [v2]", "hub [a-z]", "hub *", "hub?", "{hub,other}", "a:b", "100%", "50%20off",
     "#1", "hub v2 (copy)", "ünï", "x]y["],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_folder_is_found_whatever_its_name(kind: str, name: str, tmp_path: Path) -> None:
    for where, value in ((name, "right"), ("hub other", "wrong"), ("hub v", "wrong")):
        folder = tmp_path / where / "own/name"
        folder.mkdir(parents=True)
        table = datasets.Dataset.from_dict({"a": [value]})
        if kind == "parquet":
            table.to_parquet(str(folder / "train-00000-of-00001.parquet"))
        else:
            table.to_json(str(folder / "train.jsonl"))
    rows = load("own/name", None, "train", None, tmp_path / name, tmp_path / "scratch")
    assert list(rows["a"]) == ["right"]


def test_a_chain_of_file_systems_is_named(tmp_path: Path) -> None:
    (tmp_path / "a::b/own/name").mkdir(parents=True)
    with pytest.raises(CptBenchError, match=r"'::' in its name.*Rename it"):
        load("own/name", None, "train", None, tmp_path / "a::b", tmp_path / "scratch")


def caused_by(first: BaseException, cause: BaseException) -> BaseException:
    first.__cause__ = cause
    return first


FULL = OSError(errno.ENOSPC, "No space left on device", "/x")
ERRORS = [
    FULL,
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("Not enough disk space. Needed: 3 GiB (download: 1 GiB)"),
    OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    caused_by(datasets.exceptions.DatasetGenerationError("An error occurred"), FULL),
    caused_by(RuntimeError("one"), caused_by(ValueError("two"), FULL)),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_full_disk_is_said_as_such(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    for scratch in (tmp_path, None):
        with pytest.raises(CptBenchError, match=r"disk full.*CPTBENCH_DATA") as caught:
            load("own/name", None, "train", None, None, scratch)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EACCES, "Permission denied"), ValueError("no such split"), KeyError("a"), None],
    ids=str,
)
def test_other_errors_are_not(error: BaseException | None) -> None:
    assert not is_full(error)


@pytest.mark.parametrize("stage", ["tables", "samples"])
def test_a_disk_that_gets_full_while_a_split_is_prepared(
    stage: str, cpt7: Any, cpt7_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))

    def fail(*args: Any, **options: Any) -> None:
        raise FULL

    if stage == "tables":
        monkeypatch.setattr(datasets, "load_dataset", fail)
    else:
        monkeypatch.setattr(hub.cache, "write", fail)
    with pytest.raises(CptBenchError, match="disk full") as caught:
        hub.prepare(cpt7.card("pathvqa"), "test", cpt7_tables)
    assert len(str(caught.value).splitlines()) == 1
    monkeypatch.undo()
    left = [p for p in (tmp_path / "data").rglob("*") if p.is_file()]
    assert left == [], "nothing half-prepared stays"
