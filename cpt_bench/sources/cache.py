"""Prepared splits on disk: the words as JSON lines, the images as one Arrow file.

::

    <root>/textvqa/test-1f2e3d4c5b6a/samples.jsonl   all of each sample but its images
                                     images.arrow    sha256, bytes: each picture once, as published
                                     meta.json       how many, SHA-256, where they came from
    <root>/lock.json                                 split -> SHA-256 at its first preparation

Scoring reads the words alone and so needs no Arrow. Pictures are read one by one when they are
looked at, from a memory map, and checked against their hash: many gigabytes cost no memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from cpt_bench.errors import CptBenchError
from cpt_bench.files import (
    digest_json,
    fresh_folder,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from cpt_bench.origins import Hub
from cpt_bench.suite import Sample, TaskCard

BATCH_BYTES = 32 << 20
"""Pictures are written in record batches of about this size: what preparing holds in memory."""

WORDS = ("id", "question", "answers", "kind", "rationale", "choices", "annotators", "category")


def root() -> Path:
    """Where prepared data lie: ``$CPTBENCH_DATA``, else ``~/.cache/cptbench/data``."""
    given = os.environ.get("CPTBENCH_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else cache / "cptbench" / "data"


def key(card: TaskCard, split: str) -> str:
    """Names all that decides which samples a split holds; cards that agree on it share the data."""
    assert isinstance(card.source, Hub)
    published, source = card.splits[split], card.source
    declared = {
        "version": card.version,
        "target": source.target,
        "options": source.options,
        "from": source.splits[split].model_dump(mode="json") if split in source.splits else None,
        "n": published.n,
        "draw": published.draw.model_dump() if published.draw else None,
    }
    return f"{split}-{digest_json(declared)[:12]}"


def folder(card: TaskCard, split: str) -> Path:
    """Where a prepared split lies, or would."""
    return root() / card.name / key(card, split)


def is_prepared(card: TaskCard, split: str) -> bool:
    return (folder(card, split) / "meta.json").is_file()


def recorded(card: TaskCard, split: str) -> str | None:
    """The SHA-256 of a prepared split; None when it is not prepared."""
    file = folder(card, split) / "meta.json"
    return str(read_json(file)["sha256"]) if file.is_file() else None


def write(card: TaskCard, split: str, samples: Iterable[Sample], facts: dict[str, Any]) -> None:
    """Write a split whole or not at all; one that was prepared before must be the same again.

    Raises:
        CptBenchError: The samples are not as many, or not those, that the card or the lock says.
    """
    place = folder(card, split)
    with fresh_folder(place) as partial:
        rows = list(_words(samples, partial / "images.arrow"))
        write_jsonl(partial / "samples.jsonl", rows)
        sha256 = _rows_digest(rows)
        _check(card, split, rows, sha256)
        write_json(partial / "meta.json", {"n": len(rows), "sha256": sha256, **facts})
    _lock(f"{card.name}/{key(card, split)}", sha256)


def read(card: TaskCard, split: str, *, check: bool = True) -> list[Sample]:
    """The samples of a prepared split; their pictures are read when they are looked at."""
    place = folder(card, split)
    if not (place / "meta.json").is_file():
        raise CptBenchError(
            f"the {split} split of {card.name} is not prepared",
            where=root(),
            todo=f"Run: cptbench data prepare --suite ... --task {card.name}",
        )
    rows = read_jsonl(place / "samples.jsonl")
    if check:
        _check(card, split, rows, _rows_digest(rows))
    store = place / "images.arrow"
    return [_sample(row, store, card.instruction) for row in rows]


def _sample(row: dict[str, Any], store: Path, instruction: str) -> Sample:
    # Checked when it was written; validating again would read every picture.
    return Sample.model_construct(
        id=row["id"],
        question=row["question"] + instruction,
        images=Pictures(store, tuple(row["images"])),
        answers=tuple(row["answers"]),
        kind=row["kind"],
        rationale=row.get("rationale"),
        choices=tuple(row.get("choices", ())),
        annotators=tuple(row.get("annotators", ())),
        category=row.get("category", ""),
    )


def _check(card: TaskCard, split: str, rows: Sequence[dict[str, Any]], sha256: str) -> None:
    published, where = card.splits[split], f"task {card.name}, {split} split"
    if len(rows) != published.n:
        raise CptBenchError(f"{len(rows)} samples, not {published.n}", where=where)
    ids = [row["id"] for row in rows]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise CptBenchError(f"the id {twice!r} is there more than once", where=where)
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
    """SHA-256 over ids in order, one a line."""
    return hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()


def _locked() -> dict[str, str]:
    file = root() / "lock.json"
    return dict(read_json(file)) if file.is_file() else {}


def _lock(name: str, sha256: str) -> None:
    write_json(root() / "lock.json", dict(sorted({**_locked(), name: sha256}.items())))


# ------------------------------------------------------------------------------- pictures


def _words(samples: Iterable[Sample], file: Path) -> Iterator[dict[str, Any]]:
    """Each sample's words, its pictures written to ``file`` on the way, each once."""
    import pyarrow as pa

    schema = pa.schema([("sha256", pa.string()), ("bytes", pa.large_binary())])
    known: set[str] = set()
    names: list[str] = []
    datas: list[bytes] = []
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:

        def flush() -> None:
            if names:
                writer.write_batch(pa.record_batch([names, datas], schema=schema))
                names.clear()
                datas.clear()

        for sample in samples:
            digests = []
            for data in sample.images:
                sha256 = hashlib.sha256(data).hexdigest()
                digests.append(sha256)
                if sha256 not in known:
                    known.add(sha256)
                    names.append(sha256)
                    datas.append(data)
            if sum(map(len, datas)) > BATCH_BYTES or len(datas) >= 1024:
                flush()
            words = {name: getattr(sample, name) for name in WORDS}
            yield {**{k: v for k, v in words.items() if v}, "images": digests}
        flush()


def _rows_digest(rows: Iterable[dict[str, Any]]) -> str:
    """What :func:`cpt_bench.sources.split_digest` gives for the samples, from their words."""
    from cpt_bench.sources import digest_fields

    total = hashlib.sha256()
    for row in rows:
        total.update(
            digest_fields(
                row["id"], row["question"], row["images"], row["answers"], row["kind"],
                row.get("choices", ()), row.get("annotators", ()), row.get("category", ""),
            )
        )  # fmt: skip
    return total.hexdigest()


class Pictures(Sequence[bytes]):
    """A sample's encoded images, read from the store when they are looked at.

    Raises:
        CptBenchError: On reading, when the bytes are not those that were prepared.
    """

    __slots__ = ("digests", "store")

    def __init__(self, store: Path, digests: tuple[str, ...]) -> None:
        self.store, self.digests = store, digests

    def __len__(self) -> int:
        return len(self.digests)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> bytes | Pictures:
        if isinstance(index, slice):
            return Pictures(self.store, self.digests[index])
        sha256 = self.digests[index]
        data = _open(self.store).get(sha256)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise CptBenchError(
                f"the picture {sha256[:12]}... is damaged or missing",
                where=self.store,
                todo="Delete the folder and prepare the task again",
            )
        return data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pictures) and self.digests == other.digests

    def __hash__(self) -> int:
        return hash(self.digests)


class _Store:
    """One Arrow file of pictures, memory-mapped."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.places = {
            name: (b, row)
            for b, batch in enumerate(self.batches)
            for row, name in enumerate(batch.column(0).to_pylist())
        }

    def get(self, sha256: str) -> bytes | None:
        place = self.places.get(sha256)
        if place is None:
            return None
        scalar = self.batches[place[0]].column(1)[place[1]]
        return bytes(scalar.as_buffer())


@lru_cache(maxsize=64)
def _open(file: Path) -> _Store:
    try:
        return _Store(file)
    except ModuleNotFoundError as error:
        raise CptBenchError(
            f"reading pictures needs {error.name}, which is not installed",
            todo="Install it with: pip install 'cptbench[train]'",
        ) from None
    except (OSError, ValueError) as error:
        raise CptBenchError(
            f"the pictures cannot be read ({error})",
            where=file,
            todo="Delete the folder and prepare the task again",
        ) from None
