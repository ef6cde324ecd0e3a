"""What an honest run can hardly look like; each check says what it saw and how rare that is."""

from __future__ import annotations

import numpy as np

from cpt_bench.leaderboard.findings import Report, Status
from cpt_bench.leaderboard.gold import BaseRow
from cpt_bench.leaderboard.recompute import Seed, stage_name
from cpt_bench.leaderboard.stats import wilson
from cpt_bench.suite import Suite

MIN_KEPT = 200
"""Items right before a stage, from which on losing none of them is implausible."""
MIN_GAINED = 20
MIN_MOVED = 200
"""Replies that training changed, from which on their being the same in two seeds says something."""
MIN_KINDS = 10
"""And how many different replies there must be among them."""


def check_plausible(
    suite: Suite, seeds: dict[int, Seed], base: BaseRow | None, own_base: bool, report: Report
) -> None:
    """All checks over all seeds."""
    for number, seed in seeds.items():
        if own_base:
            _base_row(f"seed-{number}", seed, base, report)
        _never_loses(f"seed-{number}", seed, report)
        _knows_the_future(f"seed-{number}", seed, suite, report)
    _between_seeds(seeds, report)


def _base_row(where: str, seed: Seed, base: BaseRow | None, report: Report) -> None:
    """Row 0 is the suite's published base row, within the 99 % interval of its sample size."""
    name = f"{where}: row 0 is the base model's"
    if base is None:
        report.claim(name, None, Status.unverifiable, "the suite publishes no base row")
        return
    fine = True
    for bench, (known, n) in base.scores.items():
        table = seed.tables.get((0, bench))
        if table is None:
            continue
        found = float(100 * table.outcomes[0].mean())
        low, high = wilson(known, n)
        if not low - 1e-9 <= found <= high + 1e-9:
            fine = False
            interval = f"{known:.1f} [{low:.1f}, {high:.1f}]"
            what = f"the base model scores {found:.1f} on {bench}; published {interval}"
            report.error("base-row", f"{where}/predictions/0-base", what)
    status = Status.verified if fine else Status.refuted
    report.claim(name, None, status, "compared with the suite's published base row, 99 % interval")


def _never_loses(where: str, seed: Seed, report: Report) -> None:
    """Training moves answers both ways. Gains without one loss point to picked answers."""
    kept = gained = lost = 0
    for (t, bench), table in seed.tables.items():
        before = seed.tables.get((t - 1, bench))
        if before is None:
            continue
        was, now = before.outcomes[0] > 0.5, table.outcomes[0] > 0.5
        kept += int(was.sum())
        lost += int((was & ~now).sum())
        gained += int((~was & now).sum())
    if kept >= MIN_KEPT and gained >= MIN_GAINED and lost <= 0.001 * kept:
        what = f"of {kept} right answers, stage after stage, {lost} were lost and {gained} won"
        report.error("never-loses", where, what)


def _knows_the_future(where: str, seed: Seed, suite: Suite, report: Report) -> None:
    """A task scores near 100 % in a stage before it is trained, far above its base row."""
    for position, task in enumerate(seed.manifest.order, 1):
        first = seed.tables.get((0, task))
        if first is None or len(first.marks) < 50:
            continue
        base = 100 * first.outcomes[0].mean()
        for t in range(1, position):
            table = seed.tables.get((t, task))
            if table is None:
                continue
            now = 100 * table.outcomes[0].mean()
            if now >= 99 and now - base > 30:
                stage = stage_name(seed.manifest.order, t)
                what = f"{task} scores {now:.1f} before it was trained (base {base:.1f})"
                report.error("knows-the-future", f"{where}/predictions/{stage}", what)


def _between_seeds(seeds: dict[int, Seed], report: Report) -> None:
    """Different seeds give different weights and different answers, from the same base answers."""
    numbers = sorted(seeds)
    for i, a in enumerate(numbers):
        for b in numbers[i + 1 :]:
            _compare(a, seeds[a], b, seeds[b], report)


def _compare(a: int, one: Seed, b: int, two: Seed, report: Report) -> None:
    where = f"seed-{a}, seed-{b}"
    trained = [cell for cell in one.tables if cell[0] > 0 and cell in two.tables]
    same = [cell for cell in trained if one.tables[cell].replies == two.tables[cell].replies]
    base_weights = one.manifest.base.weights
    changed = set(one.manifest.weights.values()) - {base_weights}
    shared = changed & set(two.manifest.weights.values())
    if shared:
        what = f"two seeds list the same weights ({min(shared)[:12]}…)"
        report.error("seed-same-weights", where, what)
    frozen = bool(one.manifest.weights) and not changed
    equal, total, kinds = _moved(one, two, trained)
    # A model that barely moved, or says one thing to everything, says it whatever the seed.
    if not frozen and total >= MIN_MOVED and kinds >= MIN_KINDS:
        if equal >= 0.999 * total:
            what = f"{equal} of {total} replies that training changed are the same: one run, twice"
            report.error("seed-identical", where, what)
        elif len(same) > 0.5 * len(trained):
            what = f"{len(same)} of {len(trained)} files of replies are the same"
            report.warn("seed-alike", where, what)
    for bench in sorted({name for t, name in one.tables if t == 0}):
        if (0, bench) not in two.tables:
            continue
        left, right = one.tables[0, bench].marks, two.tables[0, bench].marks
        alike = float(np.mean(left == right))
        if alike < 0.9:
            share = f"{100 * alike:.0f} %"
            what = f"the base model answers {bench} alike in {share} only, decoding greedily"
            report.error("base-differs", where, what)


def _moved(one: Seed, two: Seed, cells: list[tuple[int, str]]) -> tuple[int, int, int]:
    """Of the replies that either seed's training changed: how many are equal, all, and kinds."""
    equal = total = 0
    seen: set[int] = set()
    for stage, bench in cells:
        first = one.tables.get((0, bench))
        if first is None:
            continue
        left, right = one.tables[stage, bench].marks, two.tables[stage, bench].marks
        moved = (left != first.marks) | (right != first.marks)
        equal += int((left == right)[moved].sum())
        total += int(moved.sum())
        seen.update(left[moved].tolist())
    return equal, total, len(seen)
