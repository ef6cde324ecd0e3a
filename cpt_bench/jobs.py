"""What worker processes do, beside training: prepare a train split, evaluate one checkpoint.

Orders are plain data, so that they reach a worker by pickling and could as well be JSON.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt_bench.cpu import set_threads
from cpt_bench.engines import open_engine
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation import evaluate as evaluate_task
from cpt_bench.files import read_jsonl, write_jsonl
from cpt_bench.policy import weights_digest
from cpt_bench.prepare import prepare as write_split
from cpt_bench.sources.kept import kept_split
from cpt_bench.suite import load_suite

if TYPE_CHECKING:
    from cpt_bench.engines.hf import TransformersEngine

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
    """Evaluate one checkpoint on ``names``, writing ``outputs``.

    ``data`` is where generated test splits are kept; ``engine`` and ``settings`` are what
    :func:`cpt_bench.engines.open_engine` takes.
    """

    suite_folder: Path
    checkpoint: Path | str
    weights: str
    names: list[str]
    outputs: list[Path]
    limit: int | None
    threads: int
    data: Path
    engine: str = "transformers"
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GeneralOrder:
    """Measure one checkpoint on ``specs``, benchmarks of other harnesses, into ``folder``.

    ``options`` are keyword arguments by spec, for the ``measure`` of its evaluator.
    """

    checkpoint: Path
    weights: str
    specs: list[str]
    folder: Path
    threads: int
    engine: str = "transformers"
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


def prepare(say: Say, order: PrepareOrder) -> None:
    """Write a task's train split as trainers read it."""
    suite = load_suite(order.suite_folder)
    write_split(suite.card(order.task), suite.protocol, order.limit, order.folder)


def evaluate(say: Say, order: EvaluateOrder) -> None:
    """Answer and grade each named benchmark; its file is whole before it is announced."""
    evaluate_each(say, [order])


def evaluate_each(say: Say, orders: Iterable[EvaluateOrder]) -> None:
    """:func:`evaluate` for one checkpoint after the other, with one engine.

    The first order opens it, under its settings; whoever gives the orders sees to it that the
    other checkpoints can be swapped in.
    """
    engine: Any = None
    for order in orders:
        if order.engine != "endpoint":  # which needs no torch here
            set_threads(order.threads)
        suite = load_suite(order.suite_folder)
        if engine is None:
            engine = open_engine(order.engine, order.checkpoint, **order.settings)
        else:
            engine.swap(order.checkpoint)
        if engine.weights != order.weights:
            raise _other_weights(order.checkpoint, engine.weights, order.weights)
        for name, output in zip(order.names, order.outputs, strict=True):
            start = time.monotonic()
            card = suite.card(name)
            samples = kept_split(card, order.data)[: order.limit]
            rows = evaluate_task(engine, card, samples, suite.protocol)
            write_jsonl(output, rows)
            say({"kind": "evaluated", "name": name, "seconds": time.monotonic() - start})
        for line in getattr(getattr(engine, "server", None), "warnings", ()):
            say({"kind": "warning", "line": line})


def loaded(checkpoint: Path, weights: str) -> TransformersEngine:
    """An engine for a checkpoint that holds the recorded weights.

    Raises:
        CptBenchError: It holds others.
    """
    from cpt_bench.engines.hf import TransformersEngine

    engine = TransformersEngine(checkpoint)
    if engine.weights != weights:
        raise _other_weights(checkpoint, engine.weights, weights)
    return engine


@dataclass(frozen=True)
class DiagnoseOrder:
    """Ask ``samples`` of each benchmark again, the reply's beginning forced.

    Attributes:
        prefixes: Name to how the reply must begin.
        samples: Benchmark to sample ids.
        outputs: Benchmark to prefix name to file.
        data: Where generated test splits are kept.
    """

    suite_folder: Path
    checkpoint: Path
    weights: str
    prefixes: dict[str, str]
    samples: dict[str, list[str]]
    outputs: dict[str, dict[str, Path]]
    threads: int
    data: Path


@dataclass(frozen=True)
class DivergenceOrder:
    """Compare a checkpoint with the base along the base's own replies.

    Attributes:
        predictions: Benchmark to the base's predictions.
        prompts: Benchmark to how many of its first prompts are asked.
        data: Where generated test splits are kept.
    """

    suite_folder: Path
    base: Path
    checkpoint: Path
    weights: str
    predictions: dict[str, Path]
    prompts: dict[str, int]
    output: Path
    threads: int
    data: Path


def diagnose(say: Say, order: DiagnoseOrder) -> None:
    """Answer with each prefix; a benchmark's files are whole before it is announced."""
    set_threads(order.threads)
    suite = load_suite(order.suite_folder)
    engine = loaded(order.checkpoint, order.weights)
    for name, ids in order.samples.items():
        start = time.monotonic()
        card, wanted = suite.card(name), set(ids)
        samples = [s for s in kept_split(card, order.data) if s.id in wanted]
        for prefix, output in order.outputs[name].items():
            rows = evaluate_task(
                engine, card, samples, suite.protocol, prefix=order.prefixes[prefix]
            )
            write_jsonl(output, rows)
        say({"kind": "diagnosed", "name": name, "seconds": time.monotonic() - start})


def divergence(say: Say, order: DivergenceOrder) -> None:
    """KL(base || policy) on the first prompts of each benchmark; see the module of that name."""
    from cpt_bench.divergence import divergence as along
    from cpt_bench.engines import Request
    from cpt_bench.engines.hf import TransformersEngine

    set_threads(order.threads)
    suite = load_suite(order.suite_folder)
    base, policy = TransformersEngine(order.base), loaded(order.checkpoint, order.weights)
    rows: list[dict[str, Any]] = []
    for name, predictions in order.predictions.items():
        replies = {row["id"]: row["reply"] for row in read_jsonl(predictions)}
        requests = [
            Request(s.id, suite.protocol.prompt(s.question), s.images, replies[s.id])
            for s in kept_split(suite.card(name), order.data)[: order.prompts[name]]
            if s.id in replies
        ]
        rows += [{"name": name, **row} for row in along(base, policy, requests)]
    write_jsonl(order.output, rows)


def measure_general(say: Say, order: GeneralOrder) -> None:
    """Run other harnesses on a checkpoint; each measurement is whole before it is announced."""
    from cpt_bench import general

    set_threads(order.threads)
    if (found := weights_digest(order.checkpoint)) != order.weights:
        raise _other_weights(order.checkpoint, found, order.weights)
    for name in order.specs:
        start = time.monotonic()
        spec = general.parse(name)
        measure = importlib.import_module(general.EVALUATORS[spec.evaluator]).measure
        options = order.options.get(name, {})
        if spec.evaluator == "lm-eval":  # loads the checkpoint itself
            measured = measure(spec.task, order.checkpoint, **options)
        else:
            engine = open_engine(order.engine, order.checkpoint, **order.settings)
            measured = measure(spec.task, engine, **options)
        general.write(order.folder, spec, order.weights, measured)
        say({"kind": "evaluated", "name": name, "seconds": time.monotonic() - start})


def _other_weights(place: Path | str, found: str, wanted: str) -> CptBenchError:
    return CptBenchError(
        f"holds weights {found[:12]}…, not {wanted[:12]}… as recorded",
        where=place,
        todo="Delete the stage's folder and its ledger records to do it again",
    )
