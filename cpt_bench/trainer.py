"""The interface third parties write to: a method turns a stage into a checkpoint.

The whole of it is one class::

    class Mine(Trainer):
        class Config(TrainerConfig):
            learning_rate: float = 1e-5

        def train(self, stage: Stage) -> None:
            ...  # start from stage.policy, learn stage.samples, write stage.output

A trainer sees a :class:`Stage` and never the suite: no test split, no other task's data, no general
benchmark is within its reach.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Privileges(BaseModel):
    """What a method uses beyond the current task, declared and shown beside its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replay_samples_per_task: int = 0
    joint: bool = False
    earlier_checkpoints: bool = False


class TrainerConfig(BaseModel):
    """Base of every trainer's hyper-parameters: typed, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class TrainSample:
    """One training question as every method sees it.

    Attributes:
        id: The sample's id within its task.
        prompt: The user's turn, in the protocol's words.
        images: Encoded image files, shown before the words.
        target: What supervised training writes: the gold answer in the protocol's form.
        rationale: A chain of thought, where the data set has one.
    """

    id: str
    prompt: str
    images: Sequence[bytes]
    target: str
    rationale: str | None = None


@dataclass(frozen=True)
class RewardParts:
    """A reply's verifiable reward and what it is made of, each in [0, 1]."""

    total: float
    accuracy: float
    format_ok: bool


@dataclass(frozen=True)
class Stage:
    """One step of the sequence: train on one task, starting from the last checkpoint.

    Attributes:
        index: 1 for the first task.
        task: The task's name.
        policy: The checkpoint to start from, a folder in Hugging Face format.
        samples: The task's train split.
        reward: (sample id, reply) -> reward, from the suite's own grader.
        max_new_tokens: The longest reply the protocol lets a model write.
        seed: Seeds everything random in this stage; differs from stage to stage.
        output: The folder to write the new checkpoint to; it exists and is empty.
        state: A folder of the trainer's own that lasts from stage to stage.
        log: Reports one row of training figures (``step``, ``steps``, then any numbers).
    """

    index: int
    task: str
    policy: Path
    samples: Sequence[TrainSample]
    reward: Callable[[str, str], RewardParts]
    max_new_tokens: int
    seed: int
    output: Path
    state: Path
    log: Callable[[dict[str, Any]], None] = field(default=lambda row: None)


class Trainer(ABC):
    """A post-training method.

    Attributes:
        Config: The method's hyper-parameters; a recipe and ``--set`` fill it.
        privileges: What the method uses beyond the current task.
    """

    Config: ClassVar[type[TrainerConfig]] = TrainerConfig
    privileges: ClassVar[Privileges] = Privileges()

    def __init__(self, config: TrainerConfig) -> None:
        self.config: Any = config

    @abstractmethod
    def train(self, stage: Stage) -> None:
        """Learn ``stage.samples`` and write a loadable checkpoint to ``stage.output``."""
