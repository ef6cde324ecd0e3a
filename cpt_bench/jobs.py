"""What worker processes do: train one stage, evaluate one checkpoint.

Orders are plain data, so that they reach a worker by pickling and could as well be JSON.
"""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpt_bench.engines import open_engine
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation import evaluate as evaluate_task
from cpt_bench.evaluation import matcher_of
from cpt_bench.files import fresh_folder, write_jsonl
from cpt_bench.grading import grade, reward
from cpt_bench.plugins import resolve
from cpt_bench.policy import weights_digest
from cpt_bench.sources import load_split
from cpt_bench.suite import Protocol, Sample, TaskCard, load_suite
from cpt_bench.trainer import RewardParts, Stage, TrainSample

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainOrder:
    """Train one stage; see :class:`cpt_bench.trainer.Stage` for the fields it becomes.

    Attributes:
        launch: ``torchrun …`` or ``accelerate launch …``: train on several processes.
        partial: This process is one of several and not the one that writes.
    """

    suite_folder: Path
    task: str
    index: int
    trainer: str
    config: dict[str, Any]
    seed: int
    limit: int | None
    threads: int
    policy: Path
    output: Path
    earlier_state: Path | None
    state: Path
    train_log: Path
    launch: str | None = None
    partial: bool = False


@dataclass(frozen=True)
class EvaluateOrder:
    """Evaluate one checkpoint on ``names``, writing ``outputs``.

    ``engine`` and ``settings`` are what :func:`cpt_bench.engines.open_engine` takes.
    """

    suite_folder: Path
    checkpoint: Path
    weights: str
    names: list[str]
    outputs: list[Path]
    limit: int | None
    threads: int
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


def train(say: Say, order: TrainOrder) -> dict[str, Any]:
    """Run the trainer on one stage.

    Returns:
        Facts for the ledger: the new weights' digest, seconds spent generating, peak memory.
    """
    if order.launch is not None:
        from cpt_bench import launch

        return launch.train(say, order)
    set_threads(order.threads)
    suite = load_suite(order.suite_folder)
    card, protocol = suite.card(order.task), suite.protocol
    samples = load_split(card, "train")[: order.limit]
    trainer_class = resolve("trainers", order.trainer).value
    trainer = trainer_class(trainer_class.Config.model_validate(order.config))
    rows: list[dict[str, Any]] = []

    def log(row: dict[str, Any]) -> None:
        rows.append(row)
        say({"kind": "train", "task": order.task, **row})

    with fresh_folder(order.state) as state, fresh_folder(order.output) as output:
        if order.earlier_state is not None:
            shutil.copytree(order.earlier_state, state, dirs_exist_ok=True)
        stage = Stage(
            index=order.index,
            task=order.task,
            policy=order.policy,
            samples=train_samples(samples, protocol),
            reward=reward_function(card, samples, protocol),
            max_new_tokens=protocol.decoding.max_new_tokens,
            seed=order.seed,
            output=output,
            state=state,
            log=log,
        )
        trainer.train(stage)
        weights = "" if order.partial else checked_weights(output, order.trainer)
    write_jsonl(order.train_log, rows)
    return {
        "weights": weights,
        "generation_seconds": sum(row.get("generation_seconds", 0.0) for row in rows),
        "peak_memory_mib": peak_memory(),
    }


def train_samples(samples: list[Sample], protocol: Protocol) -> list[TrainSample]:
    """Samples as every trainer sees them: in the protocol's words."""
    return [
        TrainSample(
            id=s.id,
            prompt=protocol.prompt(s.question),
            images=s.images,
            target=protocol.target(s.answers[0]),
            rationale=s.rationale,
        )
        for s in samples
    ]


def reward_function(
    card: TaskCard, samples: list[Sample], protocol: Protocol
) -> Callable[[str, str], RewardParts]:
    """(sample id, reply) -> reward, from the task's own grader and the protocol's weights."""
    gold = {s.id: s for s in samples}
    matcher = matcher_of(card)

    def of(sample_id: str, reply: str) -> RewardParts:
        got = grade(reply, gold[sample_id], protocol.form, matcher)
        return RewardParts(reward(got, protocol.reward), got.score, got.format_ok)

    return of


def checked_weights(folder: Path, trainer: str) -> str:
    """The digest of the checkpoint a trainer wrote; weights that are not finite are refused."""
    import torch
    from safetensors import safe_open

    digest = weights_digest(folder)
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                if not torch.isfinite(tensors.get_tensor(name)).all():
                    raise CptBenchError(
                        f"trainer {trainer} wrote NaN or infinite weights ({name})",
                        where=file,
                        todo="Lower the learning rate",
                    )
    return digest


def evaluate(say: Say, order: EvaluateOrder) -> None:
    """Answer and grade each named benchmark; its file is whole before it is announced."""
    set_threads(order.threads)
    suite = load_suite(order.suite_folder)
    engine = open_engine(order.engine, order.checkpoint, **order.settings)
    if engine.weights != order.weights:
        raise _other_weights(order.checkpoint, engine.weights, order.weights)
    for name, output in zip(order.names, order.outputs, strict=True):
        start = time.monotonic()
        card = suite.card(name)
        samples = load_split(card, "test")[: order.limit]
        rows = evaluate_task(engine, card, samples, suite.protocol)
        write_jsonl(output, rows)
        say({"kind": "evaluated", "name": name, "seconds": time.monotonic() - start})


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


def _other_weights(place: Path, found: str, wanted: str) -> CptBenchError:
    return CptBenchError(
        f"holds weights {found[:12]}…, not {wanted[:12]}… as recorded",
        where=place,
        todo="Delete the stage's folder and its ledger records to do it again",
    )


def set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def peak_memory() -> float:
    """The peak resident memory of this process, in MiB."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
