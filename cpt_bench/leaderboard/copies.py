"""Finds entries that are copies of one another, under whatever names and dates.

A board shows each run once. Every entry is compared with its neighbours of the same suite version,
in all divisions: first by what is quick to read (digests of weights, and the answers of the last
stage as they stand), then, where that looks alike, by :mod:`cpt_bench.leaderboard.likeness`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.grading.natural import read_natural
from cpt_bench.grading.reading import read_boxed, read_form, read_freely
from cpt_bench.leaderboard.board import Neighbour, first_of
from cpt_bench.leaderboard.checks_files import seed_folders
from cpt_bench.leaderboard.corrections import superseded
from cpt_bench.leaderboard.entry import Manifest, read_manifest
from cpt_bench.leaderboard.findings import Refused, Report
from cpt_bench.leaderboard.likeness import likeness
from cpt_bench.leaderboard.recompute import Seed, stage_name
from cpt_bench.leaderboard.tables import mark_of, table_rows
from cpt_bench.suite import AnswerForm, Suite

LOOKS_ALIKE: Final = 0.5
"""Share of the answers that training changed and that are equal, from which on two runs are
compared in full. Of two methods with the same seed of ``docs/study/results`` it is reached only by
those that do nearly the same."""

Marks = npt.NDArray[np.uint32]
Verify = Callable[[Path], dict[int, Seed]]


class Sketch(NamedTuple):
    """The parts of a seed that are quick to read.

    Attributes:
        manifest: Of the seed.
        before: CRC-32 of the base model's answers, all benchmarks one after the other.
        after: The same after the last stage.
    """

    manifest: Manifest
    before: Marks
    after: Marks


def check_copies(
    me: Neighbour,
    seeds: dict[int, Seed],
    others: list[Neighbour],
    suite: Suite,
    verify: Verify,
    report: Report,
) -> None:
    """Check that no seed of the entry is one of a neighbour's.

    Args:
        me: The entry.
        seeds: Its seeds, recomputed.
        others: Its neighbours.
        suite: The suite of all of them.
        verify: Recomputes a neighbour's seeds.
        report: Receives findings: the older of two entries stands, with a warning.
    """
    if not others:
        return
    mine = sketches(me.folder, suite)
    peers = {other.folder.name: other for other in [*others, me] if other.same_division(me)}
    for other in others:
        if _corrects(me, other, peers) or _corrects(other, me, peers):
            continue  # a correction is packed again from the same runs
        for (number, one), (theirs, two) in product(
            mine.items(), sketches(other.folder, suite).items()
        ):
            why = _same_weights(one.manifest, two.manifest)
            if not why and _looks_alike(one, two) and number in seeds:
                found = verify(other.folder).get(theirs)
                if found is not None:
                    why = likeness(seeds[number], found, _comparable(one, two)).copied()
            if why:
                _name(me, number, other, theirs, why, report)
                break


def _name(
    me: Neighbour, number: int, other: Neighbour, theirs: int, why: str, report: Report
) -> None:
    where = f"seed-{number}"
    first = first_of(me, other)
    place = "/".join(other.place)
    if first == me:
        what = f"seed-{theirs} of {place}, which is younger, is a copy of it: {why}"
        report.warn("copied", where, what)
        return
    older = "which is older" if first == other else "and neither is older"
    what = (
        f"is seed-{theirs} of {place}, {older}: {why}; running a published method again "
        "is a reproduction of it (cptbench reproduce)"
    )
    report.error("copy", where, what)


def _corrects(new: Neighbour, old: Neighbour, peers: dict[str, Neighbour]) -> bool:
    mine = new.entry.is_by(*old.entry.authors)
    return new.same_division(old) and mine and old.folder.name in superseded(new, peers)


def _same_weights(one: Manifest, two: Manifest) -> str:
    """In words, which stage of both has the same weights, where they cannot have."""
    base = {one.base.weights, two.base.weights, ""}
    if len(one.order) != len(two.order):
        return ""
    for t, (a, b) in enumerate(zip(_listed(one), _listed(two), strict=True)):
        # Runs in two orders share the stages before their orders part.
        apart = one.order[:t] != two.order[:t] or t == len(one.order)
        if t and a == b and a not in base and (apart or one.order == two.order):
            return f"{stage_name(one.order, t)} has the same weights ({a[:12]}…)"
    return ""


def _listed(manifest: Manifest) -> list[str]:
    stages = range(len(manifest.order) + 1)
    return [manifest.weights.get(stage_name(manifest.order, t), "") for t in stages]


def _comparable(one: Sketch, two: Sketch) -> list[int] | None:
    """All stages; of runs in two orders, or of joint and sequential ones, the last."""
    a, b = one.manifest, two.manifest
    return None if (a.order, a.joint) == (b.order, b.joint) else [len(a.order)]


def _looks_alike(one: Sketch, two: Sketch) -> bool:
    lengths = {len(part) for part in (one.before, one.after, two.before, two.after)}
    if len(lengths) != 1 or not len(one.after):
        return False
    moved = (one.after != one.before) | (two.after != one.before)
    return bool(moved.any()) and float(np.mean((one.after == two.after)[moved])) >= LOOKS_ALIKE


def sketches(folder: Path, suite: Suite) -> dict[int, Sketch]:
    """Seed to its sketch, of the seeds that can be read."""
    found = {}
    form, names = suite.protocol.form, (*sorted(suite.sequence), *suite.general)
    for place in seed_folders(folder):
        try:
            info = (place / "manifest.json").stat()
            stamp = info.st_mtime_ns, info.st_size
            found[int(place.name.partition("-")[2])] = _sketch(place, names, form, stamp)
        except (Refused, OSError, IndexError):
            continue
    return found


@functools.lru_cache(maxsize=8192)
def _sketch(
    place: Path, names: tuple[str, ...], form: AnswerForm, stamp: tuple[int, int]
) -> Sketch:
    """A seed's sketch; ``stamp`` changes when it is packed again, which empties its cache entry."""
    manifest = read_manifest(place)
    ends = []
    for t in (0, len(manifest.order)):
        marks: list[int] = []
        for name in names:
            file = place / "predictions" / stage_name(manifest.order, t) / f"{name}.jsonl.zst"
            marks += (mark_of(_answer(str(row.get("reply")), form)) for row in table_rows(file))
        ends.append(np.array(marks, dtype=np.uint32))
    return Sketch(manifest, *ends)


def _answer(reply: str, form: AnswerForm) -> str:
    """What grading would find in a reply, without a question to grade it for."""
    if form.kind == "whole":
        return reply
    if form.kind == "natural":
        return read_natural(reply, "line") or reply
    found = read_boxed(reply) if form.kind == "boxed" else read_form(reply, form)
    return found or read_freely(reply, form) or reply
