"""One stage, in a worker process: run the trainer or command, then check what it wrote.

The job names a ``stage.json`` and a view (:mod:`cpt_bench.stage.isolation`); everything the
trainer knows about the benchmark is in that document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt_bench.errors import PrivilegeError
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.files import write_jsonl
from cpt_bench.stage import command, isolation, launch
from cpt_bench.stage.document import StageDocument, open_stage
from cpt_bench.stage.memory import ReplayStore
from cpt_bench.stage.outputs import check_checkpoint, set_aside
from cpt_bench.stage.trainers import class_of
from cpt_bench.worker.threads import set_threads

Send = Callable[[dict[str, Any]], None]

TRAIN_LOG = "train.jsonl"


@dataclass(frozen=True)
class TrainJob:
    """Train one stage.

    Attributes:
        document: Its ``stage.json``.
        trainer: The trainer's spec, or ``cmd:`` and a command line.
        view: The files that the trainer may see.
        parameters: How many weights the base model has.
        launch: ``torchrun …`` or ``accelerate launch …``: train on several processes.
    """

    document: Path
    trainer: str
    view: isolation.View
    parameters: int
    launch: str | None = None


_watch: isolation.Watch | None = None


def isolate(job: TrainJob) -> None:
    """Enter the job's view, before this process has started any thread."""
    global _watch
    _watch = isolation.enter(job.view)


def train(send: Send, job: TrainJob) -> dict[str, Any]:
    """Run the trainer on one stage.

    Returns:
        Facts for the ledger: the kind of isolation, seconds spent generating, parameters.

    Raises:
        TrainerFault: The trainer broke the contract; ``kind`` names how.
    """
    document = StageDocument.read(job.document)
    rows: list[dict[str, Any]] = []
    seen: list[str] = []

    def log(row: dict[str, Any]) -> None:
        rows.append(row)
        send({"kind": "train", "task": document.task, **row})

    def tell(line: str) -> None:
        send({"kind": "output", "line": line})

    trainer_class = class_of(job.trainer)
    trainer = trainer_class(trainer_class.Config.model_validate(document.config))
    for card in document.grading.cards.values():
        matcher_of(card)  # imported now: later, its package must not even be listed
    isolation.watch_opens(job.view, seen.append)
    set_threads(document.threads)
    stage = open_stage(job.document, log, tell)
    store = stage.memory
    assert isinstance(store, ReplayStore)
    before = store.ids()
    processes = 1
    try:
        if job.launch is None:
            trainer.train(stage)
        else:
            processes = launch.train(job.launch, job.trainer, stage, document.threads)
    finally:
        # Even if the trainer caught, or hid, the error of a refused file.
        seen += _watch.opened() if _watch else []
        if seen:
            raise PrivilegeError(
                f"{job.trainer} opened what it has no privilege for: {seen[0]}"
                + (f" and {len(seen) - 1} more" if len(seen) > 1 else ""),
                where=f"stage {document.index} ({document.task})",
                todo="A trainer learns from its stage alone; see docs/trainer.md",
            )
    store.check(before)
    write_jsonl(job.document.parent / TRAIN_LOG, rows)
    set_aside(document.output, document.output.parent / "aside")
    parameters = check_checkpoint(document.output, job.trainer)
    extra = parameters - job.parameters
    if extra > document.privileges.extra_parameters:
        raise PrivilegeError(
            f"{job.trainer} wrote {extra} weights more than the base model has, "
            f"{document.privileges.extra_parameters} are declared",
            where=document.output,
            todo="Declare extra_parameters in the trainer's privileges",
        )
    # The hook watches only this process, not those that a command or a launcher starts.
    elsewhere = job.launch is not None or job.trainer.startswith(command.PREFIX)
    return {
        "isolation": "namespace" if _watch else "none" if elsewhere else "audit hook",
        "parameters": parameters,
        "processes": processes,
        "generation_seconds": sum(row.get("generation_seconds", 0.0) for row in rows),
        "samples": max((row.get("samples", 0) for row in rows), default=0),
    }
