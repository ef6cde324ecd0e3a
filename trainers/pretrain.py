"""Continual pre-training: the language model's own loss on the inputs, not on the answers.

Cossu et al. 2022, "Continual Pre-Training Mitigates Forgetting in Language and Vision" (arXiv
2205.09357): a model is pre-trained further on a stream of tasks, by a self-supervised or by a
supervised protocol, and fine-tuned only later. Their finding: what is learned without labels costs
less of what the model could do before. Here the self-supervised loss of a language model is

    - sum_k ln pi(x_k | x_<k, pictures)

over the tokens x of the input (the chat template's and the question's, with its pictures in view);
places that stand for a picture are read and not predicted. ``objective=everything`` adds the
answer's tokens, as scripts do that train on whole conversations. The supervised protocol is
``sft``.

``then=sft`` adds what the paper does afterwards: all tasks' inputs are pre-trained on, one task
after the other, and then all tasks are fine-tuned at once. So that the end shows what pre-training
kept: it is compared with ``joint``, which fine-tunes in the same way and was not pre-trained. That
takes all data in one stage, and declares the privilege ``joint``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from cpt_bench.errors import CptBenchError
from cpt_bench.trainer import Privileges, Stage, TrainSample
from cpt_bench.trainers.config import processes
from cpt_bench.trainers.log import StageLog
from cpt_bench.trainers.rows import shown, user_turn
from cpt_bench.trainers.sft import SFT


class Pretrain(SFT):
    """The language model's loss on a task's inputs."""

    hooks_model = True  # the quick path computes the answers' tokens, and these are others
    completion_only: ClassVar[bool] = False

    class Config(SFT.Config):
        """Settings of :class:`Pretrain`.

        Attributes:
            objective: The tokens of the loss: the ``inputs``, or ``everything``, answers included.
            then: What follows on pre-training: ``nothing``, or ``sft`` of all tasks at once; then
                ``max_steps`` are those of each task's pre-training.
            then_steps: Steps of that fine-tuning; None takes as many as pre-training took.
        """

        objective: Literal["inputs", "everything"] = "inputs"
        then: Literal["nothing", "sft"] = "nothing"
        then_steps: int | None = Field(default=None, gt=0)

    @classmethod
    def declare(cls, config: Any) -> Privileges:
        joint = config.then == "sft"
        return super().declare(config).model_copy(update={"joint": joint})

    def train(self, stage: Stage) -> None:
        if self.config.then == "nothing":
            return super().train(stage)
        if processes() > 1:
            raise CptBenchError(
                "fine-tuning after pre-training is done in one process",
                where="then=sft",
                todo="Run it without --launch, with lora_rank where the model needs several GPUs",
            )
        tasks = [*dict.fromkeys(sample.task for sample in stage.samples)]
        alone = type(self)(self.config.model_copy(update={"then": "nothing"}))
        own = {k: v for k, v in self.config.model_dump().items() if k in SFT.Config.model_fields}
        if self.config.max_steps is not None:
            own["max_steps"] = self.config.then_steps or self.config.max_steps * len(tasks)
        log = _Continued(stage.log)
        with tempfile.TemporaryDirectory() as scratch:
            policy = stage.policy
            for k, task in enumerate(tasks):
                output = Path(scratch) / str(k)
                output.mkdir()
                part = share(stage, task, 1 / (2 * len(tasks)), stage.seed + k)
                alone.train(replace(part, policy=policy, output=output, log=log.next()))
                policy = output
            last = share(stage, None, 1 / 2, stage.seed + len(tasks))
            SFT(SFT.Config(**own)).train(replace(last, policy=policy, log=log.next()))

    def row(self, sample: TrainSample) -> dict[str, Any]:
        turns = user_turn(sample)
        if self.config.objective == "everything":
            turns = [*turns, {"role": "assistant", "content": sample.target}]
        return {"messages": turns, "images": shown(sample)}

    def adjust(self, trainer: Any, stage: Stage, log: StageLog) -> None:
        names = ("image_token_id", "video_token_id")
        known = [getattr(trainer.processing_class, name, None) for name in names]
        places = [place for place in known if place is not None]
        trainer.data_collator = _Words(trainer.data_collator, places)


class _Words:
    """TRL's collator without labels on the tokens that stand for a picture."""

    def __init__(self, inner: Any, places: Sequence[int]) -> None:
        self.inner, self.places = inner, places

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(self.inner(examples))
        for place in self.places:
            batch["labels"][batch["input_ids"] == place] = -100
        return batch


def share(stage: Stage, task: str | None, part: float, seed: int) -> Stage:
    """A ``part`` of a stage's budget, for one task's samples or, with None, for all."""
    samples = stage.samples if task is None else [s for s in stage.samples if s.task == task]
    budget = stage.budget
    if budget.samples is not None:
        budget = budget.model_copy(update={"samples": max(1, int(budget.samples * part))})
    return replace(stage, samples=samples, seed=seed, budget=budget, task=task or stage.task)


class _Continued:
    """Logs of several trainings as one: steps and samples go on counting."""

    def __init__(self, log: Callable[[dict[str, Any]], None]) -> None:
        self.log = log
        self.before = {"step": 0, "samples": 0}
        self.latest = dict(self.before)

    def next(self) -> Callable[[dict[str, Any]], None]:
        """The log of the training that comes next."""
        before = self.before = dict(self.latest)

        def log(row: dict[str, Any]) -> None:
            counted = {key: row[key] + before[key] for key in before if key in row}
            self.latest |= counted
            steps = {"steps": row["steps"] + before["step"]} if "steps" in row else {}
            self.log({**row, **counted, **steps})

        return log
