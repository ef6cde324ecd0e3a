"""Shared fixtures: the tiny suite, and a tiny Qwen2.5-VL with random weights to train."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.suite import Suite, open_suite
from tests.support.commands import here, sft_args

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two test processes with a thread for each core would spend most of their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

with contextlib.suppress(ImportError):  # tests/peers run without it
    from hypothesis import settings

    # The same inputs in every run: what fails today fails again tomorrow, and nothing else does.
    settings.register_profile("repeatable", derandomize=True)
    settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share tests out between processes so that nothing costly is made twice and nobody waits at the end.

    Tests that read one fixture of their module are one group, which ``--dist loadgroup`` leaves
    together; every other test goes to whoever is free. Those that take long begin first.
    """
    for item in items:
        shares = any(fixture.scope == "module" for fixture in fixtures_of(item))
        if shares and item.config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def fixtures_of(item: pytest.Item) -> list[pytest.FixtureDef[Any]]:
    info = getattr(item, "_fixtureinfo", None)
    return [found[-1] for found in info.name2fixturedefs.values()] if info else []


@pytest.fixture(autouse=True)
def subnormal_floats() -> Iterator[None]:
    """What a worker process sets up for itself (:mod:`cpt_bench.worker.threads`) ends with the test it ran in.

    Numbers close to 0 would be 0 in the tests that follow, which Hypothesis refuses to draw from.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Qwen2.5-VL with nano's tokenizer and processor, in a folder."""
    torch = pytest.importorskip("torch")
    from cpt_bench.tasks.nano.base.architecture import build_model, build_processor

    folder = tmp_path_factory.mktemp("models") / "tiny"
    processor = build_processor()
    model = build_model(
        processor.tokenizer, seed=3, width=64, layers=2, heads=2, vision_width=32, vision_depth=1
    )
    assert model.dtype == torch.float32
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, for the tests of pages."""
    from benchmarks.site import FLAGS, chromium

    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (found := chromium()) is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=found, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``cptbench`` in an empty folder; with ``env`` or ``input`` in a process of its own."""

    def call(*args: object, **process: Any) -> subprocess.CompletedProcess[str]:
        if not process:
            return here(tmp_path, *args)
        command = [sys.executable, "-m", "cpt_bench", *map(str, args)]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(command, **{**options, **process})

    return call


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., str]:
    """Write a trainer whose ``train`` has a given body; returns its spec."""
    from tests.support.made_trainers import trainer_file

    return partial(trainer_file, tmp_path)


@pytest.fixture(scope="session")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = here(folder.parent, *sft_args(tiny_model, "--out", folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="session")
def cpt7_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten published tables in small, in the hub's layout."""
    from tests.support.cpt7_fixtures import TEST, TRAIN, build_hub

    return build_hub(tmp_path_factory.mktemp("hub"), TRAIN, TEST)


@pytest.fixture(scope="session")
def cpt7_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of cpt7 with the counts of ``cpt7_tables``, as ``--suite`` takes it."""
    from tests.support.cpt7_fixtures import TEST, TRAIN, build_suite

    return build_suite(tmp_path_factory.mktemp("suite") / "cpt7", "none", TRAIN, TEST, (4, 3))


@pytest.fixture(scope="session")
def cpt7_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data of ``cpt7`` are prepared; what a test adds stays."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def cpt7_place(cpt7_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared data are looked for in ``cpt7_data``."""
    monkeypatch.setenv("CPTBENCH_DATA", str(cpt7_data))


@pytest.fixture(scope="session")
def cpt7(cpt7_tables: Path, cpt7_folder: Path, cpt7_data: Path) -> Suite:
    """cpt7 with the fixtures' counts, prepared."""
    from cpt_bench.sources import hub

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPTBENCH_DATA", str(cpt7_data))
        for card in open_suite(str(cpt7_folder)).cards.values():
            for split in card.splits:
                hub.prepare(card, split, cpt7_tables)
        return open_suite(str(cpt7_folder))
