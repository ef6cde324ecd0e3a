"""Real vLLM, its CPU build, in this process: one engine for all tests of a file."""

from __future__ import annotations

import os

# Before vLLM is imported. The first is the engine's own default; workers and servers get the rest.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two that wait for each other are slower than one

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.suite import Suite, open_suite
from tests.support.peers import SMALL, changed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("vllm") is None:
        here = str(Path(__file__).parent)
        for item in items:
            if str(item.path).startswith(here):
                item.add_marker(pytest.mark.skip(reason="needs the real vLLM: make peers"))


@pytest.fixture(scope="session")
def nano() -> Suite:
    return open_suite("nano")


@pytest.fixture(scope="session")
def base(nano: Suite) -> Path:
    return nano.base_path()


@pytest.fixture(scope="session")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkpoint of the base's kind, which answers otherwise."""
    return changed(base, tmp_path_factory.mktemp("checkpoints") / "other")


@pytest.fixture(scope="module")
def engine(base: Path) -> Iterator[Any]:
    """vLLM with nano's base."""
    from cpt_bench.engines import open_engine

    opened: Any = open_engine("vllm", base, **SMALL)
    yield opened


@pytest.fixture
def on_base(engine: Any, base: Path) -> Iterator[Any]:
    """The engine, holding the base before and after the test, whatever the test did."""
    yield engine
    engine.swap(base)
