"""Sizes and hashes of a suite's splits, in each of its variants: are they in the cards?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpt_bench.advice.again import Finding
from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest_json
from cpt_bench.plugins import SUITE
from cpt_bench.sources import split_digest
from cpt_bench.sources.declared import usable_rows
from cpt_bench.sources.loading import made_split
from cpt_bench.suite import Suite, TaskCard, load_suite
from cpt_bench.suite.columns import Files
from cpt_bench.suite.origins import Hub, ReasoningGym
from cpt_bench.suite.pinning import pin
from cpt_bench.suite.prepared import is_prepared
from cpt_bench.suite.variants import (
    OVERLAYS,
    Variant,
    place_of_split,
    protocols_of,
    tiers_of,
    variants_of,
)


def is_pinned(card: TaskCard, split: str) -> bool:
    return card.splits[split].sha256 is not None


def file_of(suite: Suite, card: TaskCard) -> Path:
    """The file of a card."""
    return suite.folder / f"{card.name}.yaml"


def place_in_card(suite: Suite, card: TaskCard, split: str) -> tuple[str, ...]:
    """The overlay of a card that the size and the hash of a split belong to."""
    protocol = suite.protocol
    declared = read_mapping(file_of(suite, card))
    return place_of_split(declared, split, protocol.name, protocol.style, suite.tier or None)


def sized(suite: Suite, card: TaskCard, split: str) -> TaskCard:
    """The card with as many samples as its files have, where nothing else decides that.

    A draw does, and an overlay that gives a number of its own: it means fewer.
    """
    published = card.splits[split]
    if not isinstance(card.source, Files) or published.draw:
        return card
    given: Any = read_mapping(file_of(suite, card))
    inside = place_in_card(suite, card, split)
    for key in (*inside, "splits", split):
        given = given.get(key) or {}
    if inside and "n" in given and not given.get("sha256"):
        return card
    whole = published.model_copy(update={"n": len(usable_rows(card, split)) or 1})
    return card.model_copy(update={"splits": {**card.splits, split: whole}})


Written = dict[tuple[str, str, tuple[str, ...]], str]
"""Task, split and overlay to the hash that was written there."""


def pinned(suite: Suite, card: TaskCard, split: str, written: Written | None) -> Iterator[Finding]:
    """Whether a split's hash is in its card.

    Args:
        suite: The suite, in the variant that the split is of.
        card: The task.
        split: The split's name.
        written: What was written before; the hash is then written into the card. None: it is not.
    """
    place, published = f"{card.name}/{split}", card.splits[split]
    if written is not None and (not isinstance(card.source, Hub) or is_prepared(card, split)):
        n, sha256 = published.n, str(published.sha256)
        if not isinstance(card.source, Hub):
            samples = made_split(card, split, check=False)
            n, sha256 = len(samples), split_digest(samples)
        inside = place_in_card(suite, card, split)
        if written.setdefault((card.name, split, inside), sha256) != sha256:
            what = f"{'.'.join(inside)} of its card has other samples in another variant"
            cure = "One hash cannot be that of both: give one of the two a task of its own"
            yield Finding(place, False, what, cure)
            return
        try:
            changed = pin(file_of(suite, card), split, n, sha256, inside)
        except CptBenchError as error:
            yield Finding(place, False, error.what, error.todo)
            return
        done = "written" if changed else "as in the card"
        yield Finding(place, True, f"{n} samples, sha256 {sha256[:12]}… {done}")
    elif not is_pinned(card, split):
        cure = "Mend what is wrong, then run: cptbench suite check SUITE --pin"
        yield Finding(place, False, "has no sha256: nobody could tell whether it changed", cure)
    else:
        half = 196 * (0.25 / published.n) ** 0.5
        what = f"{published.n} samples, as published"
        yield Finding(
            place,
            True,
            f"{what}; a cell's interval is at most ±{half:.0f} points" if split == "test" else what,
        )


# ---------------------------------------------------------------------------------- variants


def sized_otherwise(suite: Suite) -> Iterator[tuple[Suite, str]]:
    """(suite in another variant, task) where a task's samples are others than in ``suite``.

    Data sets of the hub, whose hashes are recorded when they are prepared, and of packages that
    make samples from a seed are left out; they are checked where their variant is asked for.
    """
    seen = {_samples_key(card) for card in suite.cards.values()}
    for other in _other_variants(suite):
        for name in (*other.sequence, *other.general):
            card = other.card(name)
            if isinstance(card.source, Hub | ReasoningGym) or _samples_key(card) in seen:
                continue
            seen.add(_samples_key(card))
            yield other, name


def _other_variants(suite: Suite) -> Iterator[Suite]:
    """The suite in all its variants, where none was asked for."""
    if suite.variant == Variant():
        for variant in variants_of(read_mapping(suite.folder / SUITE)):
            yield load_suite(suite.place_of(variant))


def _samples_key(card: TaskCard) -> str:
    kept = {"name", "source", "splits", "answer_kinds"}
    return digest_json(card.model_dump(mode="json", include=kept))


def unnamed_overlays(suite: Suite) -> Iterator[Finding]:
    """Overlays of cards under names that the suite does not have: they are never applied."""
    declared = read_mapping(suite.folder / SUITE)
    known = {"tiers": {*tiers_of(declared)}, "protocols": {*protocols_of(declared)}}
    for variant in variants_of(declared):
        known["protocols"].add(f"{variant.protocol}.{variant.style}")
    for card in suite.cards.values():
        given = read_mapping(file_of(suite, card))
        for kind in OVERLAYS:
            for name in (given.get(kind) or {}).keys() - known[kind]:
                what = f"{kind}.{name} is not a name that suite.yaml has: it is never used"
                there = ", ".join(sorted(known[kind])) or "none"
                yield Finding(card.name, False, what, f"There is: {there}")
