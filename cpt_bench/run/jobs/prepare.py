"""Writing a task's train split as trainers read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.stage.split import write_split
from cpt_bench.suite import load_suite


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
