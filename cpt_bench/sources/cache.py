"""Prepared splits on disk, each a folder of :mod:`cpt_bench.sources.store`.

::

    <root>/textvqa/test-1f2e3d4c5b6a/samples.jsonl   each sample, without its images
                                     images.arrow    sha256, bytes: each picture once, as published
                                     meta.json       number of samples, SHA-256, their origin
    <root>/lock.json                                 split -> SHA-256 of its first preparation
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import fresh_folder, read_json, read_jsonl, write_json
from cpt_bench.sources.store import SAMPLES, rows_digest, samples_of, write_samples
from cpt_bench.suite import Sample, TaskCard
from cpt_bench.suite.prepared import folder, key, root


def write(card: TaskCard, split: str, samples: Iterable[Sample], facts: dict[str, Any]) -> None:
    """Write a split completely or not at all; if it was prepared before, it must not differ.

    Raises:
        CptBenchError: The number of samples or their hash is not that of the card or the lock.
    """
    place = folder(card, split)
    with fresh_folder(place) as partial:
        rows = write_samples(samples, partial)
        sha256 = rows_digest(rows)
        _check(card, split, rows, sha256)
        write_json(partial / "meta.json", {"n": len(rows), "sha256": sha256, **facts})
    _lock(f"{card.name}/{key(card, split)}", sha256)


def read(card: TaskCard, split: str, *, check: bool = True) -> list[Sample]:
    """The samples of a prepared split; pictures are read only when they are accessed."""
    place = folder(card, split)
    if not (place / "meta.json").is_file():
        raise CptBenchError(
            f"the {split} split of {card.name} is not prepared",
            where=root(),
            todo=f"Run: cptbench data prepare --suite SUITE --task {card.name}, with its suite",
        )
    rows = read_jsonl(place / SAMPLES)
    if check:
        _check(card, split, rows, rows_digest(rows))
    return samples_of(rows, place, card.instruction)


def _check(card: TaskCard, split: str, rows: Sequence[dict[str, Any]], sha256: str) -> None:
    published, where = card.splits[split], f"task {card.name}, {split} split"
    if len(rows) != published.n:
        raise CptBenchError(f"{len(rows)} samples, not {published.n}", where=where)
    ids = [row["id"] for row in rows]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise CptBenchError(f"the id {twice!r} occurs more than once", where=where)
    if published.ids and (found := ids_digest(ids)) != published.ids:
        raise CptBenchError(
            f"the ids are not the published ones (sha256 {found[:12]}..., not "
            f"{published.ids[:12]}...)",
            where=where,
            todo="The data set has changed since the card was written",
        )
    if published.sha256 and sha256 != published.sha256:
        raise CptBenchError(
            f"the samples differ from the published ones (sha256 {sha256[:12]}..., not "
            f"{published.sha256[:12]}...)",
            where=where,
            todo="The data set has changed since the card was written, or the cache was edited",
        )
    first = _locked().get(f"{card.name}/{key(card, split)}")
    if first and first != sha256:
        raise CptBenchError(
            f"the samples differ from those first prepared (sha256 {sha256[:12]}..., not "
            f"{first[:12]}...)",
            where=where,
            todo=f"If the change is wanted, delete its line in {root() / 'lock.json'}",
        )


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 over ids in order, one per line."""
    return hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()


def _locked() -> dict[str, str]:
    file = root() / "lock.json"
    return dict(read_json(file)) if file.is_file() else {}


def _lock(name: str, sha256: str) -> None:
    write_json(root() / "lock.json", dict(sorted({**_locked(), name: sha256}.items())))
