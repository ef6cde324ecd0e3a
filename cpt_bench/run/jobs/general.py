"""Measuring a checkpoint with another harness: lm-eval, VLMEvalKit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench import general
from cpt_bench.engines import open_engine
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.run.jobs.evaluate import require_weights
from cpt_bench.worker.threads import set_threads


class GeneralJob(NamedTuple):
    """Measure one checkpoint on a benchmark of another harness.

    Attributes:
        checkpoint: Its folder.
        weights: The digest that its weights must have.
        spec: The benchmark, as ``--general`` takes it.
        folder: Where the measurement is written.
        threads: Threads to compute on.
        limit: Only the first so many questions.
        engine: What answers, for a harness that does not load the checkpoint itself.
        settings: The engine's.
    """

    checkpoint: Path
    weights: str
    spec: str
    folder: Path
    threads: int
    limit: int | None = None
    engine: str = "transformers"
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed


def measure(send: Callable[[dict[str, Any]], None], job: GeneralJob) -> None:
    """Run the harness and write what it measured."""
    set_threads(job.threads)
    require_weights(weights_digest(job.checkpoint), job.weights, job.checkpoint)
    spec = general.parse(job.spec)
    harness = general.evaluator(spec)
    asked: Any = job.checkpoint
    if not harness.LOADS_CHECKPOINTS:
        asked = open_engine(job.engine, job.checkpoint, **job.settings)
    measured = harness.measure(spec.task, asked, limit=job.limit)
    general.write(job.folder, spec, job.weights, measured)
