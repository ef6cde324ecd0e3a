"""How alike two runs answer: what honest seeds share, and what a copy does."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from cpt_bench.leaderboard.copies import _answer
from cpt_bench.leaderboard.likeness import (
    COPIED,
    COPIED_LOSSES,
    RELATIVE,
    RELATIVE_LOSSES,
    RELATIVE_STAGE,
    Likeness,
    Share,
    likeness,
)
from cpt_bench.leaderboard.recompute import Seed
from cpt_bench.leaderboard.tables import Table, mark_of
from tests.support.places import ROOT

RESULTS = ROOT / "docs/study/results"
N = 600


def table(answers: Any, good: Any) -> Table:
    outcomes = np.zeros((5, len(answers)))
    outcomes[0] = good
    marks = np.asarray(answers, dtype=np.uint64)
    return Table(outcomes, "", marks, marks, 0, 0)


def seed(tables: dict[tuple[int, str], Table]) -> Seed:
    return Seed(None, tables, None)  # type: ignore[arg-type]


BASE = np.arange(N) + 10_000
HAD = np.arange(N) % 2 == 0


def run(
    rng: np.random.Generator, lose: float = 0.5, kinds: int = 50
) -> dict[tuple[int, str], Table]:
    """A run of two stages on one benchmark: half of what the base knew is lost, answers change."""
    out = {(0, "x"): table(BASE, HAD)}
    for t in (1, 2):
        good = np.where(HAD, rng.random(N) > lose, rng.random(N) < 0.3)
        answers = np.where(good, 1_000_000 + np.arange(N), rng.integers(0, kinds, N))
        out[t, "x"] = table(answers, good)
    return out


def test_two_seeds_and_a_copy() -> None:
    one, two = run(np.random.default_rng(0)), run(np.random.default_rng(1))
    assert likeness(seed(one), seed(two)).copied() == ""
    found = likeness(seed(one), seed(one))
    assert found.answers.part == 0 and found.answers.of > 400
    assert found.copied().startswith("0 of ")


def test_a_copy_whose_wrong_answers_are_other_wrong_ones() -> None:
    """Every wrong answer is another one: which questions were lost is still the same."""
    one = run(np.random.default_rng(0))
    scrambled = dict(one)
    for cell in [c for c in one if c[0]]:
        wrong = one[cell].outcomes[0] < 0.5
        answers = np.where(wrong, one[cell].answers + 500, one[cell].answers)
        scrambled[cell] = table(answers, one[cell].outcomes[0])
    found = likeness(seed(one), seed(scrambled))
    assert found.answers.value == 1
    assert found.copied().startswith("0 answers were lost by one of them alone; ")


def test_two_runs_that_lost_everything_are_not_one() -> None:
    """Both diverged: no answer is right, and each is wrong in its own way."""
    one, two = (run(np.random.default_rng(s), lose=1.0, kinds=10**6) for s in (0, 1))
    assert likeness(seed(one), seed(two)).losses.part == 0
    assert likeness(seed(one), seed(two)).copied() == ""


def test_two_runs_that_say_one_thing_are_not_one() -> None:
    one, two = (run(np.random.default_rng(s)) for s in (0, 1))
    for cells in (one, two):
        for cell in [c for c in cells if c[0]]:
            cells[cell] = table(np.ones(N), np.zeros(N))
    assert likeness(seed(one), seed(two)).copied() == ""


def test_a_share_of_few_says_nothing() -> None:
    assert not Share(0, 199).surely_below(0.1) and Share(0, 200).surely_below(0.1)
    assert Share(10, 400).surely_below(0.1) and not Share(30, 400).surely_below(0.1)


def test_nearer_than_the_other_pairs() -> None:
    def pair(part: int, of: int = 1000) -> Likeness:
        return Likeness({1: Share(part, of)}, Share(0, 0))

    assert pair(200).nearer_than([pair(800), pair(850)]) == (
        "200 of 1000 (of the entry's other pairs 80 %, 85 %) contested answers differ"
    )
    assert pair(600).nearer_than([pair(800), pair(850)]) == ""
    assert pair(200).nearer_than([]) == ""
    assert "of stage 1 differ" in pair(8, 100).nearer_than([pair(80, 100), pair(85, 100)])


# ---------------------------------------------------------------------------- measured on the study


def stored_seeds() -> dict[str, list[tuple[int, Seed]]]:
    """Method and settings to its stored runs, by seed."""
    from cpt_bench.study.stored import read_all
    from cpt_bench.suite import open_suite

    form = open_suite("nano").protocol.form
    known: dict[str, int] = {}

    def mark(reply: str) -> int:
        if reply not in known:
            known[reply] = mark_of(_answer(reply, form))
        return known[reply]

    groups: dict[str, list[tuple[int, Seed]]] = defaultdict(list)
    for run in read_all(RESULTS):
        keys = ("trainer", "config", "privileges", "budget", "order", "base")
        group = json.dumps([run.facts.get(key) for key in keys], sort_keys=True)
        tables = {
            cell: table([mark(reply) for reply in row["replies"]], row["strict"])
            for cell, row in run.answers.items()
        }
        groups[group].append((run.facts["seed"], seed(tables)))
    return groups


@pytest.mark.slow
def test_honest_seeds_are_far_from_what_is_called_a_copy() -> None:
    """The figures in the docstring of likeness.py: the least of all pairs, far above the limits."""
    least: dict[str, float] = defaultdict(lambda: 9.0)
    pairs = 0

    def note(what: str, value: float) -> None:
        least[what] = min(least[what], value)

    for runs in stored_seeds().values():
        found = {
            (a, b): likeness(one, two)
            for (a, one), (b, two) in combinations(sorted(runs, key=lambda r: r[0]), 2)
            if a != b
        }
        pairs += len(found)
        for pair, mine in found.items():
            others = [other for key, other in found.items() if key != pair]
            assert mine.copied() == "" and mine.nearer_than(others) == ""
            note("answers", mine.answers.value)
            for share in mine.stages.values():
                note("stage", share.value if share.of >= 200 else 9)
            note("losses", mine.losses.value if mine.losses.of >= 200 else 9)
            if others:
                note("relative", mine.answers.value / np.mean([o.answers.value for o in others]))
                for t, share in mine.stages.items():
                    there = [o.stages[t].value for o in others if o.stages[t].of >= 60]
                    if share.of >= 60 and there:
                        note("relative stage", share.value / np.mean(there))
                lost = [o.losses.value for o in others if o.losses.of >= 200]
                if mine.losses.of >= 200 and lost:
                    note("relative losses", mine.losses.value / np.mean(lost))
    assert pairs >= 200
    limits = {
        "stage": COPIED, "answers": COPIED, "losses": COPIED_LOSSES, "relative": RELATIVE,
        "relative stage": RELATIVE_STAGE, "relative losses": RELATIVE_LOSSES,
    }  # fmt: skip
    said = {
        "stage": 0.22, "answers": 0.29, "losses": 0.16, "relative": 0.87, "relative stage": 0.63,
        "relative losses": 0.71,
    }  # fmt: skip
    assert {k: round(v, 2) for k, v in least.items()} == pytest.approx(said, abs=0.011)
    for what, limit in limits.items():
        factor = 1.7 if what in ("relative", "relative stage") else 2
        assert least[what] >= factor * limit, what
