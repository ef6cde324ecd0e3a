"""Writing a task's train split as trainers read it; finding what generators read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.files import digest_json, write_json
from cpt_bench.sources import load_split
from cpt_bench.sources.apart import require_questions_apart
from cpt_bench.sources.opened import opened_files
from cpt_bench.stage.split import write_split
from cpt_bench.suite import Suite, TaskCard, load_suite
from cpt_bench.suite.origins import Generator


class PrepareJob(NamedTuple):
    """Write the train split of ``task`` to ``folder``; ``limit``: only its first samples."""

    suite_folder: Path
    task: str
    limit: int | None
    folder: Path


def prepare(send: Callable[[dict[str, Any]], None], job: PrepareJob) -> None:
    """Write the split, all of it or nothing."""
    suite = load_suite(job.suite_folder)
    write_split(suite.card(job.task), suite.protocol, job.limit, job.folder)


class LookJob(NamedTuple):
    """Run the generators of a suite once, and write what files each reads to ``data``."""

    suite_folder: Path
    data: Path


def look(send: Callable[[dict[str, Any]], None], job: LookJob) -> None:
    """Write a list of files for each generator that has none yet."""
    for card, file in listed(load_suite(job.suite_folder), job.data):
        if file.is_file():
            continue
        assert isinstance(card.source, Generator)
        with opened_files(card.source.target) as found:
            made = {split: load_split(card, split) for split in card.splits}
        if {"train", "test"} <= made.keys():
            require_questions_apart(card, made["train"], made["test"])
        write_json(file, sorted(map(str, found)))


def listed(suite: Suite, data: Path) -> list[tuple[TaskCard, Path]]:
    """Cards whose generator may read files from anywhere, with where these are listed.

    This package's own read nothing but what is installed with it.
    """
    out = []
    for card in suite.cards.values():
        source = card.source
        if isinstance(source, Generator) and not source.target.startswith("cpt_bench."):
            key = digest_json([card.model_dump(mode="json"), str(card.folder)])[:16]
            out.append((card, data / f"{card.name}-reads-{key}.json"))
    return out
