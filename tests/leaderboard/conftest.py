"""A small good entry for all tests of the leaderboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.entries.make import make_entry


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Intervals from 200 resamples: these tests are about what is caught, not about widths."""
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def good(few_draws: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(suite, entry), not to be changed; the runs are beside the suite."""
    return make_entry(tmp_path_factory.mktemp("good"))


@pytest.fixture
def entry(good: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy to spoil, in a board of its own."""
    board = tmp_path / "leaderboards"
    inside = good[1].relative_to(good[1].parents[3])
    shutil.copytree(good[1], board / inside)
    (board / "RULES.md").write_text("rules\n")
    return board / inside
