"""The interface for methods by third parties: a method turns a stage into a checkpoint.

It is a single class::

    class Mine(Trainer):
        class Config(TrainerConfig):
            learning_rate: float = 1e-5

        def train(self, stage: Stage) -> None:
            ...  # start from stage.policy, learn stage.samples, write stage.output

A trainer sees a :class:`Stage` and never the suite: it has no access to test splits, other tasks'
data or general benchmarks. The same stage is on disk as ``stage.json`` for methods that are not
Python classes; see :mod:`cpt_bench.stage.document` and ``docs/trainer.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from cpt_bench.suite.protocol import AnswerForm


class Privileges(BaseModel):
    """What a method uses beyond the current task: declared, enforced, shown with its numbers.

    Attributes:
        replay_samples_per_task: How many training samples of each earlier task it may store.
        earlier_checkpoints: Whether it reads the checkpoints of stages before the last one.
        joint: Whether it trains on all tasks at once, in one stage: an upper bound, not a method.
        extra_parameters: How many weights its checkpoints may have beyond the base model's.
        task_identity: Whether its checkpoint needs to know, at test time, each question's task.
        general_data: Whether it trains on its own data in addition to the suite's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    replay_samples_per_task: int = Field(default=0, ge=0)
    earlier_checkpoints: bool = False
    joint: bool = False
    extra_parameters: int = Field(default=0, ge=0)
    task_identity: bool = False
    general_data: bool = False


class Needs(NamedTuple):
    """What must be there for a method to train, checked before a run starts.

    Attributes:
        packages: Modules that it imports under its settings, in addition to those of its file.
        gpu: Whether it trains on a GPU, one for each process.
        launch: Whether several processes must train (``--launch``).
        pixels: The least and the most pixels that pictures are brought to in training, which the
            base model's processor must be able to do.
    """

    packages: tuple[str, ...] = ()
    gpu: bool = False
    launch: bool = False
    pixels: tuple[int | None, int | None] = (None, None)


class Budget(BaseModel):
    """The limits of a stage.

    Attributes:
        samples: How many training prompts a stage may draw, repeated draws included; None: no
            limit. A trainer logs how many it drew as ``samples``.
        seconds: Wall time after which the stage is ended; None: no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0)


class TrainerConfig(BaseModel):
    """Base class of every trainer's hyper-parameters: typed; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class TrainSample:
    """One training question as every method sees it.

    Attributes:
        id: The sample's id within its task.
        task: The task's name.
        prompt: The user's turn, in the protocol's wording.
        image_files: Its image files, which come before the text.
        target: The target of supervised training: the gold answer in the protocol's form.
        rationale: A chain of thought, if the data set has one.
        system: The system's turn before it; empty leaves it to the chat template.
    """

    id: str
    task: str
    prompt: str
    image_files: tuple[Path, ...]
    target: str
    rationale: str | None = None
    system: str = ""

    @property
    def images(self) -> tuple[bytes, ...]:
        """The encoded images, read from disk each time: a train split may not fit in memory."""
        return tuple(file.read_bytes() for file in self.image_files)


class RewardParts(NamedTuple):
    """A reply's verifiable reward and its parts, each in [0, 1]."""

    total: float
    accuracy: float
    format_ok: bool


class Memory(Protocol):
    """Samples that a trainer stores from earlier tasks, within the number that it declared."""

    def tasks(self) -> list[str]:
        """Names of the tasks that have stored samples, sorted."""
        ...

    def samples(self, task: str | None = None) -> list[TrainSample]:
        """The stored samples of one task, or of all."""
        ...

    def add(self, samples: Sequence[TrainSample]) -> None:
        """Store samples of the current stage.

        Raises:
            PrivilegeError: A task would have more than the declared number.
        """
        ...


@dataclass(frozen=True)
class Stage:
    """One step of the sequence: train on one task, starting from the last checkpoint.

    Attributes:
        index: 1 for the first task.
        task: The task's name; ``joint`` for a trainer with that privilege.
        policy: The checkpoint to start from, a folder in Hugging Face format. Read-only.
        samples: The task's train split (every task's, for a trainer with the privilege ``joint``).
        reward: (sample, reply) -> reward, from the suite's own grader; samples of ``memory`` too.
        max_new_tokens: Maximal length of a reply under the protocol.
        seed: Seeds everything random in this stage; differs from stage to stage.
        budget: The stage's limits.
        output: The folder to write the new checkpoint to; it exists and is empty.
        state: The trainer's own folder, which is passed on from stage to stage.
        memory: Samples stored from earlier tasks, within the trainer's privilege.
        earlier: Checkpoints of all stages before, base model first; empty without the privilege
            ``earlier_checkpoints``.
        form: The tags that surround a thought and an answer, in the protocol's form of a reply.
        document: The stage as ``stage.json``, for methods that pass it on.
        log: Reports one row of training figures (``step``, ``steps``, then any numbers).
        tell: Shows one line of output to the user.
        save_every: After how many steps to save a state to go on from; None: not at all.
        resume: Where to save it. What is there when the stage begins was left by an interrupted
            try of this very stage, with the same inputs. None where nothing is to be saved.
    """

    index: int
    task: str
    policy: Path
    samples: Sequence[TrainSample]
    reward: Callable[[TrainSample, str], RewardParts]
    max_new_tokens: int
    seed: int
    output: Path
    state: Path
    memory: Memory
    document: Path
    budget: Budget = field(default_factory=Budget)
    earlier: tuple[Path, ...] = ()
    form: AnswerForm = field(default_factory=AnswerForm)
    log: Callable[[dict[str, Any]], None] = field(default=lambda row: None)
    tell: Callable[[str], None] = field(default=lambda line: None)
    save_every: int | None = None
    resume: Path | None = None


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

    @classmethod
    def declare(cls, config: Any) -> Privileges:
        """The privileges under ``config``; override it if a setting changes them."""
        return cls.privileges

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """What must be there under ``config``: a run that lacks it is refused before it starts."""
        return Needs()

    @abstractmethod
    def train(self, stage: Stage) -> None:
        """Learn ``stage.samples`` and write a loadable checkpoint to ``stage.output``."""
