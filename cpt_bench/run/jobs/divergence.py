"""Measuring KL(base || policy) along the base model's own replies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.evaluation.divergence import divergence
from cpt_bench.files import read_jsonl
from cpt_bench.run.jobs.evaluate import require_weights
from cpt_bench.sources.kept import kept_split
from cpt_bench.suite import load_suite
from cpt_bench.suite.protocol import as_words
from cpt_bench.worker.threads import set_threads


class DivergenceJob(NamedTuple):
    """Compare a checkpoint with the base model.

    Attributes:
        suite_folder: The suite, variant included.
        base: The base model's folder.
        checkpoint: The stage's.
        weights: The digest that its weights must have.
        predictions: Benchmark to the base's predictions.
        prompts: Benchmark to how many of its first prompts are asked.
        threads: Threads to compute on.
        data: Where generated test splits are stored.
    """

    suite_folder: Path
    base: Path
    checkpoint: Path
    weights: str
    predictions: dict[str, Path]
    prompts: dict[str, int]
    threads: int
    data: Path


def diverge(
    send: Callable[[dict[str, Any]], None], job: DivergenceJob
) -> dict[str, list[dict[str, Any]]]:
    """KL and entropies on the first prompts of each benchmark: its name to a row a prompt."""
    set_threads(job.threads)
    suite = load_suite(job.suite_folder)
    base, policy = TransformersEngine(job.base), TransformersEngine(job.checkpoint)
    require_weights(policy.weights, job.weights, job.checkpoint)
    rows = {}
    for name, predictions in job.predictions.items():
        replies = {row["id"]: row["reply"] for row in read_jsonl(predictions)}
        requests = [
            Request(
                s.id,
                suite.protocol.prompt(s.question),
                s.images,
                as_words(replies[s.id]),
                system=suite.protocol.system,
            )
            for s in kept_split(suite.card(name), job.data)[: job.prompts[name]]
            if s.id in replies
        ]
        rows[name] = divergence(base, policy, requests)
    return rows
