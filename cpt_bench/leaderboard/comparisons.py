"""Compares an entry's claims with a rerun of it: what is within tolerance, and what is not.

On other hardware, a rerun differs after a few hundred steps as much as another seed does, so it is
compared like one more seed. This finds what an entry alone cannot show: answers that were improved
throughout, and stages that were exchanged.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.leaderboard.gold import Gold
from cpt_bench.leaderboard.recompute import Seed, score_seed, stage_name
from cpt_bench.leaderboard.stats import predicted, t95, wilson
from cpt_bench.leaderboard.tables import Table
from cpt_bench.results.scoring import Scores
from cpt_bench.suite import Suite

HEADLINE: Final = ("AvgAcc", "Learn", "FM", "GeneralDelta")
AGREEMENT: Final = 0.97
"""Share of sampled replies that earn the same score from the same weights."""
CELLS_OUTSIDE: Final = 1
"""Cells of R that may lie outside their tolerance: of 105 honest seeds stored in
``docs/study/results``, drawn again 200 times around what they vary by, 99 % had no more."""
EXCHANGED: Final = -5.0
"""Standard errors at which a rerun's two stages are nearer to each other's claims than to their
own. Holding each of the 105 seeds against its two siblings: only methods at two and four times
their recipe's learning rate, whose seeds diverge, come below it (10 seeds); with two neighbouring
stages exchanged in the claims 80 % of the exchanges do."""

Marks = npt.NDArray[np.uint64]


class Answer(NamedTuple):
    """One answer of a rerun: its score, and its mark (:func:`tables.mark_of`)."""

    strict: float
    lenient: float
    format_ok: bool
    mark: int


Answers = dict[tuple[int, str], dict[str, Answer]]
"""(stage, benchmark) -> sample id -> answer."""


class Comparison(NamedTuple):
    """One number of the entry, and that of the rerun."""

    name: str
    claimed: float
    found: float
    low: float
    high: float

    @property
    def within(self) -> bool:
        return self.low - 1e-9 <= self.found <= self.high + 1e-9


def rerun_scores(
    answers: Answers, seed: Seed, suite: Suite, gold: dict[str, Gold]
) -> Scores | None:
    """Matrix and metrics of a rerun; None where a cell is missing."""
    tables = {}
    for cell, rows in answers.items():
        graded = np.array([[float(v) for v in row[:3]] for row in rows.values()]).T
        values = np.vstack([graded, np.full((2, graded.shape[1]), np.nan)])
        marks = np.array([row.mark for row in rows.values()], dtype=np.uint64)
        tables[cell] = Table(values, "", marks, marks, 0, 0)
    manifest = seed.manifest
    return score_seed(suite, manifest.order, tables, gold, joint=manifest.joint)


def compare_rerun(
    rerun: Scores, answers: Answers, seeds: dict[int, Seed], seed: int, gold: dict[str, Gold]
) -> tuple[Comparison, ...]:
    """Compare a rerun with the range in which one more seed of the entry should fall.

    The headline numbers must be in the 95 % prediction interval of the entry's seeds, which is at
    least as wide as the interval over test samples. All cells of R but :data:`CELLS_OUTSIDE` must
    be in theirs, and no two stages may have been exchanged.
    """
    out = []
    for key in HEADLINE:
        passports = {n: s.scores.metrics[key] for n, s in seeds.items() if s.scores is not None}
        found = rerun.metrics[key]["value"]
        values = [p["value"] for p in passports.values()]
        if found is None or not values or any(v is None for v in values):
            continue
        own = passports[seed]
        half = (own["interval"]["high"] - own["interval"]["low"]) / 2
        low, high = predicted(values, half)
        out.append(Comparison(key, own["value"], found, low, high))
    out += _compare_cells(answers, seeds)
    out += _compare_stages(answers, seeds, gold)
    return tuple(out)


def _compare_cells(answers: Answers, seeds: dict[int, Seed]) -> list[Comparison]:
    """How many trained cells are outside the range for one more seed, and which is the worst."""
    cells = [c for c in answers if c[0] > 0 and all(c in s.tables for s in seeds.values())]
    if not cells:
        return []
    claimed = np.array(
        [[100 * s.tables[c].outcomes[0].mean() for c in cells] for s in seeds.values()]
    )
    found = np.array([100 * np.mean([a.strict for a in answers[c].values()]) for c in cells])
    sizes = np.array([len(answers[c]) for c in cells])
    middle, n = claimed.mean(axis=0), len(claimed)
    # A cell's own 99 % interval over samples; no narrower, even where all seeds agree.
    half = 2.576 * np.sqrt(np.maximum(middle * (100 - middle), 25.0) / sizes)
    if n > 1:
        spread = claimed.std(axis=0, ddof=1)
        pooled = math.sqrt(float((spread**2).mean()))
        wide = math.sqrt(1 + 1 / n)
        half = np.maximum(half, t95(n - 1) * wide * spread)
        half = np.maximum(half, 4 * wide * pooled)
    off = np.abs(found - middle) - half
    worst = cells[int(off.argmax())]
    order = next(iter(seeds.values())).manifest.order
    name = f"cells of {len(cells)} outside (worst: {stage_name(order, worst[0])}/{worst[1]})"
    return [Comparison(name, 0.0, float((off > 0).sum()), 0.0, float(CELLS_OUTSIDE))]


def _compare_stages(
    answers: Answers, seeds: dict[int, Seed], gold: dict[str, Gold]
) -> list[Comparison]:
    """Whether two stages were exchanged: the rerun's answers are closer to each other's claims."""
    stages = sorted({t for t, _ in answers if t > 0})
    marks: dict[tuple[int, str], Marks] = {}
    for (t, name), rows in answers.items():
        if [*rows] == [sample.id for sample in gold[name].samples]:
            marks[t, name] = np.array([row.mark for row in rows.values()], dtype=np.uint64)
    worst, pair = math.inf, (0, 0)
    for t, u in combinations(stages, 2):
        found = _in_place(t, u, marks, seeds)
        if found < worst:
            worst, pair = found, (t, u)
    if worst == math.inf:
        return []
    order = next(iter(seeds.values())).manifest.order
    name = f"{stage_name(order, pair[0])} and {stage_name(order, pair[1])} in their places"
    return [Comparison(f"{name}, standard errors", 0.0, worst, EXCHANGED, math.inf)]


def _in_place(t: int, u: int, marks: dict[tuple[int, str], Marks], seeds: dict[int, Seed]) -> float:
    """By how many standard errors two stages agree more with their own claims than crossed."""
    per_question = []
    for name in sorted({n for at, n in marks if at == t} & {n for at, n in marks if at == u}):
        if not all((t, name) in s.tables and (u, name) in s.tables for s in seeds.values()):
            continue
        own_t, own_u = marks[t, name], marks[u, name]
        each = [
            _agree(own_t, s.tables[t, name].answers) + _agree(own_u, s.tables[u, name].answers)
            - _agree(own_t, s.tables[u, name].answers) - _agree(own_u, s.tables[t, name].answers)
            for s in seeds.values()
        ]  # fmt: skip
        per_question.append(np.mean(each, axis=0))
    if not per_question:
        return math.inf
    apart = np.concatenate(per_question)
    return float(apart.sum() / max(math.sqrt(float((apart**2).sum())), 1.0))


def _agree(one: Marks, two: Marks) -> npt.NDArray[np.float64]:
    return np.asarray(one == two, dtype=np.float64)


def compare_sample(answers: Answers, seed: Seed, gold: dict[str, Gold]) -> tuple[Comparison, ...]:
    """Compare sampled answers of the same weights with the entry's to the same questions."""
    out = []
    agree = total = 0
    for (t, name), cell in answers.items():
        table = seed.tables[t, name]
        position = {s.id: i for i, s in enumerate(gold[name].samples)}
        claimed = np.array([table.outcomes[0, position[i]] for i in cell])
        found = np.array([row.strict for row in cell.values()])
        if len(found) == 0:
            continue
        agree += int((claimed == found).sum())
        total += len(found)
        low, high = wilson(100 * float(claimed.mean()), len(claimed))
        label = f"{stage_name(seed.manifest.order, t)}/{name}"
        out.append(
            Comparison(label, 100 * float(claimed.mean()), 100 * float(found.mean()), low, high)
        )
    if total:
        share = 100 * agree / total
        out.insert(0, Comparison("agreement, % of samples", 100.0, share, 100 * AGREEMENT, 100.0))
    return tuple(out)
