"""Asking lost questions again, the reply's beginning forced."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.evaluation.predictions import evaluate
from cpt_bench.files import write_jsonl
from cpt_bench.run.jobs.evaluate import require_weights
from cpt_bench.sources.kept import kept_split
from cpt_bench.suite import load_suite
from cpt_bench.worker.threads import set_threads


class DiagnoseJob(NamedTuple):
    """Ask some samples of each benchmark again.

    Attributes:
        suite_folder: The suite, variant included.
        checkpoint: The last stage's.
        weights: The digest that its weights must have.
        prefixes: Name to how the reply must begin.
        samples: Benchmark to sample ids.
        outputs: Benchmark to prefix name to file.
        threads: Threads to compute on.
        data: Where generated test splits are stored.
    """

    suite_folder: Path
    checkpoint: Path
    weights: str
    prefixes: dict[str, str]
    samples: dict[str, list[str]]
    outputs: dict[str, dict[str, Path]]
    threads: int
    data: Path


def diagnose(send: Callable[[dict[str, Any]], None], job: DiagnoseJob) -> None:
    """Answer with each prefix; a benchmark's files are whole before it is announced."""
    set_threads(job.threads)
    suite = load_suite(job.suite_folder)
    engine = TransformersEngine(job.checkpoint)
    require_weights(engine.weights, job.weights, job.checkpoint)
    for name, ids in job.samples.items():
        start = time.monotonic()
        card, wanted = suite.card(name), set(ids)
        samples = [s for s in kept_split(card, job.data) if s.id in wanted]
        for prefix, output in job.outputs[name].items():
            rows = evaluate(engine, card, samples, suite.protocol, prefix=job.prefixes[prefix])
            write_jsonl(output, rows)
        send({"kind": "written", "name": name, "seconds": time.monotonic() - start})
