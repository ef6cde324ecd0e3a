"""Samples on disk: the text as JSON lines, the images as one Arrow file.

Scoring reads only the text, so it does not need Arrow. Pictures are read one by one when they are
accessed, from a memory map, and checked against their hash: many gigabytes take up no memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from cpt_bench.errors import CptBenchError
from cpt_bench.files import write_jsonl
from cpt_bench.sources.digests import digest_fields
from cpt_bench.suite import Sample

SAMPLES, IMAGES = "samples.jsonl", "images.arrow"

BATCH_BYTES = 32 << 20
"""Approximate size of a record batch of pictures, and so the memory used to prepare a split."""

WORDS = ("id", "question", "answers", "kind", "rationale", "choices", "annotators", "category")


def write_samples(samples: Iterable[Sample], folder: Path) -> list[dict[str, Any]]:
    """Write samples into ``folder``; returns the lines of ``samples.jsonl``."""
    rows = list(_words(samples, folder / IMAGES))
    write_jsonl(folder / SAMPLES, rows)
    return rows


def samples_of(rows: Iterable[dict[str, Any]], folder: Path, instruction: str = "") -> list[Sample]:
    """The samples of ``folder`` from its lines; pictures are read when they are accessed.

    Args:
        rows: The lines of its ``samples.jsonl``.
        folder: The folder with the pictures.
        instruction: Text to append to every question.
    """
    return [_sample(row, folder / IMAGES, instruction) for row in rows]


def _sample(row: dict[str, Any], store: Path, instruction: str) -> Sample:
    # It was validated when written; validating again would read every picture.
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


def _words(samples: Iterable[Sample], file: Path) -> Iterator[dict[str, Any]]:
    """Each sample's text; writes each distinct picture to ``file`` once."""
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


def rows_digest(rows: Iterable[dict[str, Any]]) -> str:
    """The :func:`~cpt_bench.sources.digests.split_digest` of the samples, from their rows."""
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
    """A sample's encoded images, read from the store when they are accessed.

    Raises:
        CptBenchError: On access, if the bytes are not those that were prepared.
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
