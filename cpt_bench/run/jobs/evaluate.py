"""Evaluating a checkpoint: every question of some benchmarks answered and graded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.engines import open_engine
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import evaluate as evaluate_task
from cpt_bench.files import write_jsonl
from cpt_bench.sources.kept import kept_split
from cpt_bench.suite import load_suite
from cpt_bench.worker.threads import set_threads

Send = Callable[[dict[str, Any]], None]


class EvaluateJob(NamedTuple):
    """Evaluate one checkpoint.

    Attributes:
        suite_folder: The suite, variant included.
        checkpoint: Its folder; for an endpoint, the server's address.
        weights: The digest that its weights must have.
        names: Tasks and general benchmarks.
        outputs: Where the predictions of each are written.
        limit: Only the first so many samples of each split; None for all.
        threads: Threads to compute on.
        data: Where generated test splits are stored.
        engine: What answers, as :func:`cpt_bench.engines.open_engine` takes it.
        settings: The engine's.
    """

    suite_folder: Path
    checkpoint: Path | str
    weights: str
    names: tuple[str, ...]
    outputs: tuple[Path, ...]
    limit: int | None
    threads: int
    data: Path
    engine: str = "transformers"
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed


def evaluate(send: Send, job: EvaluateJob) -> None:
    """Answer and grade each named benchmark; its file is whole before it is announced."""
    evaluate_each(send, [job])


def evaluate_each(send: Send, jobs: Iterable[EvaluateJob]) -> None:
    """:func:`evaluate` for one checkpoint after the other, with one engine.

    The first job opens the engine with its settings. The other checkpoints are swapped in; the
    sender of the jobs has to make sure that this is possible.
    """
    engine: Any = None
    for job in jobs:
        if job.engine != "endpoint":  # which needs no torch here
            set_threads(job.threads)
        suite = load_suite(job.suite_folder)
        if engine is None:
            engine = open_engine(job.engine, job.checkpoint, **job.settings)
        else:
            engine.swap(job.checkpoint)
        require_weights(engine.weights, job.weights, job.checkpoint)
        for name, output in zip(job.names, job.outputs, strict=True):
            start = time.monotonic()
            card = suite.card(name)
            samples = kept_split(card, job.data)[: job.limit]
            rows = evaluate_task(engine, card, samples, suite.protocol)
            write_jsonl(output, rows)
            send({"kind": "written", "name": name, "seconds": time.monotonic() - start})
        for line in getattr(getattr(engine, "server", None), "warnings", ()):
            send({"kind": "warning", "line": line})


def require_weights(found: str, recorded: str, checkpoint: Path | str) -> None:
    """Refuse a checkpoint that is not the recorded one.

    Raises:
        CptBenchError: It holds other weights.
    """
    if found != recorded:
        raise CptBenchError(
            f"holds weights {found[:12]}…, not {recorded[:12]}… as recorded",
            where=checkpoint,
            todo="Delete the stage's folder and its ledger records to do it again",
        )
