"""Stores a generated test split next to the runs, so that it is generated only once."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cpt_bench.errors import CptBenchError
from cpt_bench.files import common_folder, read_jsonl
from cpt_bench.sources.loading import load_split, made_split, with_instruction
from cpt_bench.sources.store import SAMPLES, rows_digest, samples_of, write_samples
from cpt_bench.suite import Sample, TaskCard
from cpt_bench.suite.origins import Hub


def kept_split(card: TaskCard, root: Path) -> list[Sample]:
    """The test split of ``card``; one that is made here is stored under ``root``.

    Raises:
        CptBenchError: The stored samples are not those that the card publishes.
    """
    published = card.splits["test"].sha256
    if isinstance(card.source, Hub) or published is None:
        return load_split(card, "test")
    folder = root / f"{card.name}-test-{published[:16]}"
    if not (folder / SAMPLES).is_file():
        samples = made_split(card, "test")
        # If the disk is full, go on without: writing the results will report it.
        with contextlib.suppress(OSError), common_folder(folder) as partial:
            write_samples(samples, partial)
        return [with_instruction(s, card) for s in samples] if card.instruction else samples
    rows = read_jsonl(folder / SAMPLES)
    if rows_digest(rows) != published:
        raise CptBenchError(
            "these are not the published test samples: the folder was edited",
            where=folder,
            todo="Delete it, and run the same command again",
        )
    return samples_of(rows, folder, card.instruction)
