"""Checks for what an honest run hardly ever shows; each reports what it found, and how rare."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np

from cpt_bench.leaderboard.findings import Report, Status
from cpt_bench.leaderboard.gold import BaseRow
from cpt_bench.leaderboard.likeness import likeness
from cpt_bench.leaderboard.recompute import Seed, stage_name, stages_of
from cpt_bench.leaderboard.stats import wilson
from cpt_bench.suite import Suite

MIN_KEPT = 200
"""Right answers before a stage; with as many or more, losing none is implausible."""
MIN_GAINED = 20
SAME_WEIGHTS = 0.97
"""Share of equal answers when the same weights answer twice: decoding is greedy, but other batches
or devices add numbers in another order."""
MIN_TIMES = 10
"""Different durations in a ledger; with as many or more, sharing them is suspicious."""


def check_plausible(
    suite: Suite, seeds: dict[int, Seed], base: BaseRow | None, own_base: bool, report: Report
) -> None:
    """All checks over all seeds."""
    for number, seed in seeds.items():
        if own_base:
            _base_row(f"seed-{number}", seed, base, report)
        _never_loses(f"seed-{number}", seed, report)
        _knows_the_future(f"seed-{number}", seed, suite, report)
        _same_weights(f"seed-{number}", seed, report)
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
    """Training also makes some right answers wrong. Gains without a loss suggest chosen answers."""
    kept = gained = lost = 0
    stages = stages_of(seed.manifest.order, seed.manifest.joint)
    earlier = {t: before for before, t in pairwise(stages)}
    for (t, bench), table in seed.tables.items():
        before = seed.tables.get((earlier.get(t, -1), bench))
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


def _same_weights(where: str, seed: Seed, report: Report) -> None:
    """One set of weights gives one set of answers, whatever stages it is listed for."""
    manifest = seed.manifest
    digests = {
        t: digest
        for t in stages_of(manifest.order, manifest.joint)
        if (digest := manifest.weights.get(stage_name(manifest.order, t)))
    }
    first = {digest: t for t, digest in reversed(digests.items())}
    for t, digest in digests.items():
        if first[digest] == t:
            continue
        off = []
        for bench in sorted({name for at, name in seed.tables if at == t}):
            if (first[digest], bench) not in seed.tables:
                continue
            one, two = seed.tables[first[digest], bench].answers, seed.tables[t, bench].answers
            alike = float(np.mean(one == two))
            if alike < SAME_WEIGHTS and int((one != two).sum()) > 1:
                off.append(f"{bench} {100 * alike:.0f} %")
        if off:
            names = [stage_name(manifest.order, at) for at in (first[digest], t)]
            what = f"{names[0]} and {names[1]} list the same weights and answer alike only in "
            report.error("same-weights", f"{where}/manifest.json", what + ", ".join(off))


# -------------------------------------------------------------------------------- between seeds


def _between_seeds(seeds: dict[int, Seed], report: Report) -> None:
    """Different seeds give different weights and different answers, from the same base answers."""
    pairs = {(a, b): likeness(seeds[a], seeds[b]) for a, b in combinations(sorted(seeds), 2)}
    for (a, b), found in pairs.items():
        where = f"seed-{a}, seed-{b}"
        rest = [other for pair, other in pairs.items() if pair != (a, b)]
        if why := found.copied():
            report.error("seed-identical", where, f"are one run, twice: {why}")
        elif why := found.nearer_than(rest):
            report.error("seed-alike", where, f"are nearer to each other than seeds are: {why}")
        _shared_weights(where, seeds[a], seeds[b], report)
        _shared_records(where, seeds[a], seeds[b], report)
        _shared_base(where, seeds[a], seeds[b], report)


def _shared_weights(where: str, one: Seed, two: Seed, report: Report) -> None:
    changed = set(one.manifest.weights.values()) - {one.manifest.base.weights}
    if shared := changed & set(two.manifest.weights.values()):
        what = f"two seeds list the same weights ({min(shared)[:12]}…)"
        report.error("seed-same-weights", where, what)


def _shared_records(where: str, one: Seed, two: Seed, report: Report) -> None:
    """Two runs write other checkpoints and logs, and no step of theirs takes the same time."""
    base = one.manifest.base.weights
    for step, record in one.records.items():
        other = two.records.get(step)
        if other is None or record["facts"].get("weights") == base:
            continue
        for path, digest in record["outputs"].items():
            telling = path.endswith(("/checkpoint", "/train.jsonl", "/kl.jsonl"))
            if telling and other["outputs"].get(path) == digest:
                what = f"{step}: both wrote the same {path} ({str(digest)[:12]}…)"
                report.error("seed-same-weights", where, what)
    times = [
        (took, two.records[step].get("seconds"))
        for step, record in one.records.items()
        if step in two.records and not step.startswith("stage-0/") and "reused" not in record
        if isinstance(took := record.get("seconds"), int | float)
    ]
    same = [a for a, b in times if a == b]
    if len({a for a, _ in times}) >= MIN_TIMES and len(same) > 0.5 * len(times):
        what = f"{len(same)} of {len(times)} steps took the same time, to the millisecond"
        report.error("seed-same-times", where, what)


def _shared_base(where: str, one: Seed, two: Seed, report: Report) -> None:
    for bench in sorted({name for t, name in one.tables if t == 0}):
        if (0, bench) not in two.tables:
            continue
        left, right = one.tables[0, bench].marks, two.tables[0, bench].marks
        alike = float(np.mean(left == right))
        if alike < 0.9:
            share = f"{100 * alike:.0f} %"
            what = f"the base model answers {bench} alike in {share} only, decoding greedily"
            report.error("base-differs", where, what)
