"""What worker processes do, beside training: prepare a train split, evaluate one checkpoint.

Orders are plain data, so that they reach a worker by pickling and could as well be JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation import evaluate as evaluate_task
from cpt_bench.files import write_jsonl
from cpt_bench.prepare import prepare as write_split
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class PrepareOrder:
    """Write a task's train split to ``folder``."""

    suite_folder: Path
    task: str
    limit: int | None
    folder: Path


@dataclass(frozen=True)
class EvaluateOrder:
    """Evaluate one checkpoint on ``names``, writing ``outputs``."""

    suite_folder: Path
    checkpoint: Path
    weights: str
    names: list[str]
    outputs: list[Path]
    limit: int | None
    threads: int


def prepare(say: Say, order: PrepareOrder) -> None:
    """Write a task's train split as trainers read it."""
    suite = load_suite(order.suite_folder)
    write_split(suite.card(order.task), suite.protocol, order.limit, order.folder)


def evaluate(say: Say, order: EvaluateOrder) -> None:
    """Answer and grade each named benchmark; its file is whole before it is announced."""
    from cpt_bench.engines.hf import TransformersEngine

    set_threads(order.threads)
    suite = load_suite(order.suite_folder)
    engine = TransformersEngine(order.checkpoint)
    if engine.weights != order.weights:
        raise CptBenchError(
            f"holds weights {engine.weights[:12]}…, not {order.weights[:12]}… as recorded",
            where=order.checkpoint,
            todo="Delete the stage's folder and its ledger records to do it again",
        )
    for name, output in zip(order.names, order.outputs, strict=True):
        start = time.monotonic()
        card = suite.card(name)
        samples = load_split(card, "test")[: order.limit]
        rows = evaluate_task(engine, card, samples, suite.protocol)
        write_jsonl(output, rows)
        say({"kind": "evaluated", "name": name, "seconds": time.monotonic() - start})


def set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
