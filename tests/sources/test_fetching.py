"""Data sets from a hub on loopback, through the calls that a user makes; and a hub that misbehaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from cpt_bench.errors import CptBenchError
from cpt_bench.sources import hub as source
from cpt_bench.suite import Suite, prepared
from tests.support import hub as fake
from tests.support.commands import here

POPE, GEOMETRY = "datasets/lmms-lab/POPE", "datasets/hiyouga/geometry3k"


@pytest.fixture(scope="module")
def served(cpt7_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[fake.Hub]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "datasets").symlink_to(cpt7_tables)
    with fake.serving(folder) as server:
        yield server


@pytest.fixture
def hub(served: fake.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fake.Hub:
    served.forget()
    fake.point_at(served.url, tmp_path / "home", monkeypatch)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    return served


def lines_of(suite: Suite, task: str, split: str) -> list[str]:
    lines: list[str] = []
    source.prepare(suite.card(task), split, tell=lines.append)
    return lines


def test_each_file_is_fetched_once_and_its_size_is_known_before(
    hub: fake.Hub, cpt7: Suite, cpt7_tables: Path
) -> None:
    size = (cpt7_tables / "hiyouga/geometry3k/default/test-00000-of-00001.parquet").stat().st_size
    lines = lines_of(cpt7, "geometry3k", "test")
    assert len(lines) == 1 and lines[0].startswith("hiyouga/geometry3k: 1 files to fetch, ")
    assert f"{size / 1000:.1f} KB, into " in lines[0]
    assert len(hub.asked("GET /cdn")) == 1, "one split was asked for"
    lines_of(cpt7, "geometry3k", "train")
    assert len(hub.asked("GET /cdn")) == 2
    hub.log.clear()
    for split in ("train", "test"):
        shutil.rmtree(prepared.folder(cpt7.card("geometry3k"), split))
        assert lines_of(cpt7, "geometry3k", split) == []
    assert not hub.asked("cdn"), "what was fetched once is in the cache"


def test_what_comes_from_the_hub_is_what_comes_from_a_folder(
    hub: fake.Hub, cpt7: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join, several splits, and a configuration with odd signs in its name."""
    for task, split in (("gqa", "test"), ("superclevr", "train"), ("mmmu", "test")):
        facts = source.prepare(cpt7.card(task), split)
        assert facts["sha256"] == cpt7.card(task).splits[split].sha256, (task, split)
        repo = facts["repo"]
        assert facts["revision"] == hub.commit("datasets", repo) and not facts["local"]


BREAKS: dict[str, tuple[str, fake.Act, str]] = {
    "gated": (POPE, fake.status(401, X_Error_Code="GatedRepo"),
              r"lmms-lab/POPE: is gated, and you are not logged in \(401\); .*Accept its terms at http://127.0.0.1:\d+/datasets/lmms-lab/POPE, then log in with: hf auth login, or give a local copy"),
    "no access": (POPE, fake.status(403, X_Error_Code="GatedRepo"), r"your account has no access to it \(403\)"),
    "no such data set": (POPE, fake.status(404, X_Error_Code="RepoNotFound"), r"the hub has no dataset of this name \(404\)"),
    "too many requests": (POPE, fake.status(429, Retry_After="30"), r"asked too often from here \(429\).*again after 30 s"),
    "broken": (POPE, fake.status(500), r"the hub answered 500 \(Internal Server Error\)"),
    "its store is away": ("GET /cdn", fake.status(502), r"the hub answered 502 \(Bad Gateway\)"),
    "cut off": ("GET /cdn", fake.cut(200), r"the download was cut off.*Run the same command again"),
    "a page to log in": (".", fake.html, r"what answers at http://127.0.0.1:\d+ is not the hub"),
    "files gone": ("HEAD .*parquet", fake.status(404, X_Error_Code="EntryNotFound"), r"a file is missing there \(404\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_hub_that_misbehaves_is_one_line_and_the_next_try_goes_on(
    name: str, hub: fake.Hub, cpt7: Suite
) -> None:
    pattern, act, line = BREAKS[name]
    hub.rule(pattern, act)
    with pytest.raises(CptBenchError, match=line) as caught:
        lines_of(cpt7, "pope", "test")
    text = str(caught.value)
    assert "\n" not in text
    if not name.startswith("a page"):
        assert "lmms-lab-encoder/POPE: the hub has no dataset of this name" in text
    assert text.endswith("give a local copy with --from DIR") and "Traceback" not in text
    hub.forget()
    lines_of(cpt7, "pope", "test")


def test_a_hub_that_is_away_is_not_waited_for(
    hub: fake.Hub, cpt7: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")

    def wait(seconds: float) -> None:
        raise AssertionError("it was tried again")

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", wait)
    with pytest.raises(
        CptBenchError, match=r"cannot be reached .*Check the network and HF_ENDPOINT, or bring"
    ):
        lines_of(cpt7, "pope", "test")


def test_the_second_place_is_tried_and_later_splits_are_fetched(
    hub: fake.Hub, cpt7: Suite, cpt7_folder: Path, cpt7_tables: Path, tmp_path: Path
) -> None:
    """A download that is cut off is a reason to go on, as one that is refused is."""
    moved = cpt7_tables / "lmms-lab-encoder"
    shutil.copytree(cpt7_tables / "lmms-lab/POPE", moved / "POPE")
    hub.forget()
    try:
        hub.rule("HEAD /datasets/lmms-lab/POPE.*parquet", fake.status(500))
        tasks = ("--task", "geometry3k", "--task", "pope", "--task", "pathvqa")
        hub.rule("HEAD .*geometry3k.*test", fake.status(500))
        done = here(tmp_path, "data", "prepare", "--suite", cpt7_folder, *tasks)
    finally:
        shutil.rmtree(moved)
    assert done.returncode == 2, done.stderr
    assert "pope/test            made" in done.stdout and "lmms-lab-encoder/POPE" in done.stdout
    assert "passed over lmms-lab/POPE: the hub answered 500" in done.stderr
    assert (
        "geometry3k/test      FAILED" in done.stderr and "pathvqa/test         made" in done.stdout
    )
    assert (
        "Traceback" not in done.stderr and "not prepared: geometry3k/test. What was" in done.stderr
    )


def test_a_disk_too_small_for_a_data_set_is_found_before_it_is_fetched(
    hub: fake.Hub, cpt7: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    small: Callable[[Any], Any] = lambda place: usage._replace(free=10)  # noqa: E731
    monkeypatch.setattr("cpt_bench.hub.snapshots.shutil.disk_usage", small)
    with pytest.raises(CptBenchError, match=r"there is no room for it in .*to fetch, 10 B free"):
        lines_of(cpt7, "pope", "test")
    assert not hub.asked("GET /cdn")
