"""The stage on disk: what a method in any language reads, and where a Python ``Stage`` comes from.

::

    stage.json        this document (its JSON schema: ``cptbench trainer schema``)
    train.jsonl       the task's train split, one sample a line (:class:`Row`)
    images/           the samples' pictures, named by their SHA-256

``stage.json`` and ``train.jsonl`` need not be in the same folder: the train split is written once
and shared by every run that trains on it. Neither contains any test question.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cpt_bench.errors import CptBenchError, explain
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.files import parsed, read_json, write_json
from cpt_bench.grading import grade, reward
from cpt_bench.models.chat import Chat
from cpt_bench.stage.memory import ReplayStore, Rows, sample_of
from cpt_bench.suite import AnswerForm, RewardWeights, Sample, TaskCard
from cpt_bench.trainer import Budget, Privileges, RewardParts, Stage, TrainSample

FORMAT = 1


class Document(BaseModel):
    """A part of the contract: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(Document):
    """One line of ``train.jsonl``.

    Attributes:
        id: The sample's id within its task.
        task: The task's name.
        prompt: The user's turn, in the protocol's wording.
        images: Its picture files, relative to the folder of ``train.jsonl``; they come first.
        target: The target of supervised training: the gold answer in the protocol's form.
        rationale: A chain of thought, if the data set has one.
        gold: The gold answers and everything else that the grader needs.
    """

    id: str
    task: str
    prompt: str
    images: tuple[str, ...]
    target: str
    rationale: str | None
    gold: dict[str, Any]


class Grading(Document):
    """How a reply is rewarded: the task's grader and the protocol's form and weights."""

    cards: dict[str, TaskCard]
    form: AnswerForm
    weights: RewardWeights


class MemoryPlace(Document):
    """The replay store: ``<task>.jsonl`` with rows as in ``train.jsonl``, and ``images/``."""

    folder: Path
    samples_per_task: int = Field(ge=0)


class ResumePlace(Document):
    """Where a stage saves a state to go on from, and after how many steps.

    What is there when the stage begins was left by an interrupted try with the same inputs.
    """

    folder: Path
    every: int = Field(ge=1)


class StageDocument(Document):
    """``stage.json``.

    Attributes:
        format: The version of this contract.
        index: 1 for the first task.
        task: The task's name; ``joint`` for a trainer with that privilege.
        policy: The checkpoint to start from, a folder in Hugging Face format. Read-only.
        data: The ``train.jsonl`` to learn from; several for a joint trainer.
        output: Write the new checkpoint here, in Hugging Face format, as safetensors.
        state: The trainer's own folder, which is passed on from stage to stage.
        memory: The replay store and its budget.
        earlier: Checkpoints of all stages before, with the privilege ``earlier_checkpoints``.
        log: Append training figures here, one JSON object a line (``step``, ``steps``, numbers).
        seed: Seeds everything random in this stage.
        threads: CPU threads to use.
        max_new_tokens: Maximal length of a reply under the protocol.
        budget: The stage's limits.
        config: The method's settings, from its recipe and ``--set``.
        privileges: The privileges that the method declared.
        grading: How replies are rewarded.
        system: The system's turn before every question; empty leaves it to the chat template.
        chat: For commands: the text around a question, its pictures and the reply, as it is
            evaluated. Null where the start checkpoint's chat template has no such parts.
        resume: Where to save a state to go on from, and how often; null: nothing is to be saved.
        reward_url: For commands: POST ``{"task", "id", "reply"}`` as JSON here and get
            ``{"total", "accuracy", "format_ok"}``, while the stage runs.
    """

    format: Literal[1] = 1
    index: int = Field(ge=1)
    task: str
    policy: Path
    data: tuple[Path, ...]
    output: Path
    state: Path
    memory: MemoryPlace
    earlier: tuple[Path, ...] = ()
    log: Path
    seed: int
    threads: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    budget: Budget = Budget()
    config: dict[str, Any]
    privileges: Privileges
    grading: Grading
    system: str = ""
    chat: Chat | None = None
    reward_url: str | None = None
    resume: ResumePlace | None = None

    def write(self, file: Path) -> None:
        write_json(file, self.model_dump(mode="json"))

    @classmethod
    def read(cls, file: Path) -> StageDocument:
        """Read a ``stage.json``.

        Raises:
            CptBenchError: It is not a valid document, or its format has another version.
        """
        data = read_json(file)
        if isinstance(data, dict) and data.get("format") != FORMAT:
            raise CptBenchError(
                f"stage format {data.get('format')!r}, this cptbench reads {FORMAT}", where=file
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise CptBenchError(explain(error), where=file) from None


def open_stage(
    file: Path,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Stage:
    """The :class:`Stage` that the ``stage.json`` in ``file`` describes.

    Args:
        file: The document.
        log: Receives the trainer's training figures.
        tell: Receives lines to show.
    """
    document = StageDocument.read(file)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    samples: list[TrainSample] = []
    for part in document.data:
        with part.open(encoding="utf-8") as lines:
            for row in map(parsed, lines):
                rows[row["task"], row["id"]] = row
                samples.append(sample_of(row, part.parent, document.system))
    memory = ReplayStore(
        document.memory.folder, document.memory.samples_per_task, rows, document.system
    )
    return Stage(
        index=document.index,
        task=document.task,
        policy=document.policy,
        samples=samples,
        reward=rewards(document.grading, rows, memory),
        max_new_tokens=document.max_new_tokens,
        seed=document.seed,
        output=document.output,
        state=document.state,
        memory=memory,
        budget=document.budget,
        earlier=document.earlier,
        form=document.grading.form,
        document=file,
        log=log,
        tell=tell,
        save_every=document.resume.every if document.resume else None,
        resume=document.resume.folder if document.resume else None,
    )


def rewards(
    grading: Grading, rows: Rows, memory: ReplayStore
) -> Callable[[TrainSample, str], RewardParts]:
    """(sample, reply) -> reward, by each task's own grader and the protocol's weights."""
    matchers = {task: matcher_of(card) for task, card in grading.cards.items()}
    replayed = memory.gold()

    def of(sample: TrainSample, reply: str) -> RewardParts:
        key = (sample.task, sample.id)
        gold = rows[key]["gold"] if key in rows else replayed[key]
        whole = Sample.model_validate({"id": sample.id, "question": sample.prompt, **gold})
        got = grade(reply, whole, grading.form, matchers[sample.task])
        return RewardParts(reward(got, grading.weights), got.score, got.format_ok)

    return of


def schema() -> dict[str, Any]:
    """The JSON schema of ``stage.json``; the one of a ``train.jsonl`` line is in ``$defs``."""
    whole = StageDocument.model_json_schema()
    row = Row.model_json_schema()
    whole["$defs"] = {**whole.get("$defs", {}), "Row": row}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}
