"""The shipped base is a worthy one: skilled enough to forget, unskilled enough to learn."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.evaluation.predictions import Row, evaluate
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite, open_suite


@pytest.fixture(scope="module")
def nano() -> Suite:
    return open_suite("nano")


@pytest.fixture(scope="module")
def base(nano: Suite) -> TransformersEngine:
    return TransformersEngine(nano.base_path())


def rows(nano: Suite, base: TransformersEngine, name: str, n: int, style: str) -> list[Row]:
    card = nano.card(name)
    return evaluate(base, card, load_split(card, "test")[:n], nano.protocol, style)


def test_zero_shot_is_in_the_band(nano: Suite, base: TransformersEngine) -> None:
    def accuracy(name: str) -> float:
        got = rows(nano, base, name, 300, "neutral")
        assert all(row["format_ok"] for row in got)
        return 100 * sum(row["score"] for row in got) / len(got)

    tasks = {name: accuracy(name) for name in nano.sequence}
    assert sum(15 <= value <= 70 for value in tasks.values()) >= 6, tasks
    probes = {name: accuracy(name) for name in nano.general}
    assert all(value >= 75 for value in probes.values()), probes


def test_it_answers_in_the_mode_it_is_asked_for(nano: Suite, base: TransformersEngine) -> None:
    for style, thinks in (("neutral", 0), ("direct", 0), ("reasoning", 1)):
        for name in ("science", "counting", "knowledge"):
            got = rows(nano, base, name, 40, style)
            share = sum(row["reply"].startswith("<think>") for row in got) / len(got)
            assert abs(share - thinks) < 0.05, (style, name, share)
