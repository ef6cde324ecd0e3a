"""A stage of the tiny suite, as a trainer gets it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt_bench.stage.document import Grading, MemoryPlace, StageDocument, open_stage
from cpt_bench.stage.split import split_folder, write_split
from cpt_bench.suite import Suite, load_suite
from cpt_bench.trainer import Privileges, Stage
from tests.support import places

TINY = load_suite(places.TINY)


def make_stage(
    task: str,
    policy: Path,
    folder: Path,
    rows: list[dict[str, Any]] | None = None,
    suite: Suite = TINY,
    **changes: Any,
) -> Stage:
    """A stage of the tiny suite, or of another, laid out on disk as a run does."""
    card = suite.card(task)
    data = split_folder(card, suite.protocol, None, folder / "data")
    write_split(card, suite.protocol, None, data)
    for part in ("out", "state", "memory"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    document = StageDocument(
        index=1,
        task=task,
        policy=policy,
        data=(data / "train.jsonl",),
        output=folder / "out",
        state=folder / "state",
        memory=MemoryPlace(folder=folder / "memory", samples_per_task=0),
        log=folder / "log.jsonl",
        seed=7,
        threads=1,
        max_new_tokens=suite.protocol.decoding.max_new_tokens,
        config={},
        privileges=Privileges(),
        grading=Grading(
            cards={task: card}, form=suite.protocol.form, weights=suite.protocol.reward
        ),
    ).model_copy(update=changes)
    document.write(folder / "stage.json")
    return open_stage(folder / "stage.json", (rows if rows is not None else []).append)


SUP: dict[str, Any] = {"learning_rate": 1e-3, "max_steps": 2, "batch_size": 4, "device": "cpu"}
"""Settings of a short supervised stage."""
RL: dict[str, Any] = {
    "learning_rate": 1e-3, "max_steps": 1, "prompts_per_step": 2, "rollouts": 4, "device": "cpu",
    "self_check": 0,
}  # fmt: skip
"""Settings of a short stage of reinforcement."""


def every(suite: Suite) -> Grading:
    """Grading that knows every task, as a stage has it whose memory holds earlier ones."""
    return Grading(
        cards={name: suite.card(name) for name in suite.sequence},
        form=suite.protocol.form,
        weights=suite.protocol.reward,
    )


EVERY = every(TINY)


def chained(
    trainers: Sequence[Any],
    policy: Path,
    folder: Path,
    tasks: Sequence[str] | None = None,
    suite: Suite = TINY,
) -> tuple[list[Stage], list[list[dict[str, Any]]]]:
    """One trainer after the other, with state and memory handed on as a run does."""
    import torch

    torch.set_num_threads(1)
    stages, logs = [], []
    for k, (trainer, task) in enumerate(
        zip(trainers, tasks or suite.sequence, strict=False), start=1
    ):
        rows: list[dict[str, Any]] = []
        kept = trainer.declare(trainer.config).replay_samples_per_task
        stage = make_stage(
            task, policy, folder / str(k), rows, suite, index=k, seed=70 + k, state=folder / "state",
            memory=MemoryPlace(folder=folder / "memory", samples_per_task=kept),
            earlier=(stages[0].policy if stages else policy,), grading=every(suite),
        )  # fmt: skip
        for place in (stage.state, stage.memory.folder):
            place.mkdir(exist_ok=True)
        trainer.train(stage)
        policy = stage.output
        stages.append(stage)
        logs.append(rows)
    return stages, logs
