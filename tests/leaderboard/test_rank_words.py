"""Why a wide range of ranks may stand above a narrow one: the board says so where it shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

import cpt_bench.leaderboard.site as site
from cpt_bench.leaderboard.stats import mean_of, ranks

FOLDER = Path(site.__file__).parent


@pytest.mark.parametrize(
    ("seeds", "places"),
    [
        # The highest mean has seeds far apart: it differs from nothing, the second does.
        ([[90, 50, 70], [60, 60.1, 60.2], [50, 50.1, 50.2]], [(1, 3), (1, 2), (2, 3)]),
        ([[60, 60.1, 60.2], [50, 50.1, 50.2]], [(1, 1), (2, 2)]),
        ([[60, 50, 40], [55, 45, 35]], [(1, 2), (1, 2)]),
        ([[60, 60, 60], [60, 60, 60]], [(1, 2), (1, 2)]),
        ([[60], [50, 50.1]], [None, (1, 1)]),
    ],
)
def test_ranges(seeds: list[list[float]], places: list[tuple[int, int] | None]) -> None:
    assert ranks([mean_of(values) for values in seeds]) == places


def test_the_board_explains_them() -> None:
    words = " ".join((FOLDER / "templates/index.html").read_text(encoding="utf-8").split())
    assert "one whose seeds vary more has a wider range, so that 1–5 may stand above 1–3" in words
    assert "wider where seeds vary more" in (FOLDER / "assets/board.js").read_text(encoding="utf-8")
