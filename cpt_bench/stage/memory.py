"""The replay store: samples a method keeps from the tasks it has learned, as many as it declared.

On disk there is one ``<task>.jsonl`` per task, with rows as in ``train.jsonl``, and an ``images``
folder, so that a method in any language can use it. The budget is checked here when a sample is
added, and by the harness when the stage ends.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpt_bench.errors import PrivilegeError, TrainerFault
from cpt_bench.files import read_jsonl, write_jsonl
from cpt_bench.trainer import TrainSample

Rows = Mapping[tuple[str, str], dict[str, Any]]
"""Rows of ``train.jsonl`` by (task, sample id)."""


class ReplayStore:
    """A bounded store of training samples.

    Args:
        folder: Its folder, which is passed on from stage to stage.
        samples_per_task: The declared budget.
        rows: The rows of ``train.jsonl`` that can be added, by task and sample id.
        system: The system's turn before every question.
    """

    def __init__(self, folder: Path, samples_per_task: int, rows: Rows, system: str = "") -> None:
        self.folder, self.samples_per_task = folder, samples_per_task
        self._rows, self._system = rows, system

    def tasks(self) -> list[str]:
        """Names of the tasks that have stored samples, sorted."""
        return sorted(file.stem for file in self.folder.glob("*.jsonl"))

    def samples(self, task: str | None = None) -> list[TrainSample]:
        """The stored samples of one task, or of all."""
        return [
            sample_of(row, self.folder, self._system)
            for name in ([task] if task else self.tasks())
            for row in self.rows(name)
        ]

    def rows(self, task: str) -> list[dict[str, Any]]:
        """The stored rows of one task, as on disk."""
        file = self.folder / f"{task}.jsonl"
        return read_jsonl(file) if file.exists() else []

    def add(self, samples: Sequence[TrainSample]) -> None:
        """Store samples of the current stage.

        Raises:
            PrivilegeError: A task would have more than the declared budget.
        """
        for task in sorted({s.task for s in samples}):
            new = [s for s in samples if s.task == task]
            rows = self.rows(task) + [self._rows[task, s.id] for s in new]
            self._within(task, len(rows))
            for image in {image for s in new for image in s.image_files}:
                target = self.folder / "images" / image.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(image, target)
            write_jsonl(self.folder / f"{task}.jsonl", rows)

    def _within(self, task: str, rows: int) -> None:
        if rows > self.samples_per_task:
            raise PrivilegeError(
                f"{rows} samples of {task} would be stored, {self.samples_per_task} are declared",
                where="memory",
                todo="Declare replay_samples_per_task in the trainer's privileges",
            )

    def check(self, before: dict[str, set[str]]) -> None:
        """Check that everything stored now is allowed, also what was written without :meth:`add`.

        Args:
            before: Task to the ids that were stored before this stage.

        Raises:
            PrivilegeError: There are more than the budget allows, or a sample is neither of this
                stage nor was stored before.
        """
        for task in self.tasks():
            try:
                ids = [row["id"] for row in self.rows(task)]
            except KeyError:
                fault = "memory holds a row without an id"
                raise TrainerFault("memory", fault, where=self.folder / f"{task}.jsonl") from None
            self._within(task, len(ids))
            mine = {sample_id for name, sample_id in self._rows if name == task}
            if stranger := sorted(set(ids) - mine - before.get(task, set())):
                raise PrivilegeError(
                    f"memory holds {stranger[0]!r}, which is not a training sample of {task}",
                    where=self.folder,
                )

    def ids(self) -> dict[str, set[str]]:
        """Task to the ids of its stored samples."""
        return {task: {row["id"] for row in self.rows(task)} for task in self.tasks()}

    def gold(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(task, id) of each stored sample to its gold answer, for the reward."""
        return {(t, row["id"]): row["gold"] for t in self.tasks() for row in self.rows(t)}


def sample_of(row: dict[str, Any], folder: Path, system: str = "") -> TrainSample:
    """A row of ``train.jsonl`` as a sample; its image files are relative to ``folder``."""
    return TrainSample(
        id=row["id"],
        task=row["task"],
        prompt=row["prompt"],
        image_files=tuple(folder / name for name in row["images"]),
        target=row["target"],
        rationale=row["rationale"],
        system=system,
    )
