"""Whether a checkpoint that a stage left opens and answers, before the stage is committed.

A job of its own, because it runs the evaluation's code: if training ran it, every edit of the
decoder would train again what it cannot have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.engines import Request
from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.files import parsed
from cpt_bench.stage.memory import sample_of
from cpt_bench.worker.threads import set_threads


class AcceptJob(NamedTuple):
    """Have the checkpoint in ``folder``, which ``trainer`` wrote, answer a question of ``data``."""

    folder: Path
    trainer: str
    data: Path
    threads: int


def accept(send: Callable[[dict[str, Any]], None], job: AcceptJob) -> None:
    """Open a checkpoint as an evaluation does, and have it answer one question, on the CPU.

    Finite weights are not yet a model: a tokenizer, a processor, a tensor or the settings may be
    missing, or of another shape.

    Raises:
        TrainerFault: It cannot be opened, or cannot answer.
    """
    # Imported here because it loads torch and transformers.
    from cpt_bench.engines.hf import TransformersEngine

    set_threads(job.threads)
    with (job.data / "train.jsonl").open(encoding="utf-8") as rows:
        first = sample_of(parsed(next(rows)), job.data)
    request = Request(first.id, first.prompt, first.images, system=first.system)
    try:
        TransformersEngine(job.folder, device="cpu").generate([request], 1)
    except Exception as error:  # whatever a broken model raises in transformers
        named = isinstance(error, CptBenchError)
        reason = error.what if isinstance(error, CptBenchError) else str(error)
        raise TrainerFault(
            "broken",
            f"trainer {job.trainer} wrote a checkpoint that does not open and answer: "
            f"{'' if named else f'{type(error).__name__}: '}{' '.join(reason.split())[:240]}",
            where=job.folder,
            todo="Save the model, its settings, tokenizer and processor to stage.output",
        ) from error
