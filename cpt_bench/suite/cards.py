"""Samples and task cards: one question, and one data set with its splits and grader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from cpt_bench.suite.base import Declared
from cpt_bench.suite.origins import Hub, ReasoningGym, Source, Split


class Sample(Declared):
    """One question.

    Attributes:
        id: Unique within its task, stable for a suite version.
        question: The text of the question, options included.
        images: Encoded image files (any format Pillow reads), in the order they are shown.
        answers: Gold answers; the first one is what supervised training writes.
        kind: The answer's kind: ``letter``, ``yesno``, ``number``, ``word`` …
        rationale: A chain of thought that leads to the answer, where the data set has one.
        choices: The options' texts, in the order of their letters.
        annotators: Each annotator's answer, if a soft score needs them all.
        category: The question's group in the data set, for scores by group.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"choices", "annotators", "category"})

    id: str
    question: str
    images: Sequence[bytes] = ()
    answers: tuple[str, ...] = Field(min_length=1)
    kind: str
    rationale: str | None = None
    choices: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    category: str = ""


class TaskCard(Declared):
    """One data set with its splits and grader.

    Attributes:
        instruction: Text after every question of this task, before the protocol's own text.
        notes: What is unknown about this data set, or differs from the publication.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"instruction", "notes"})

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    title: str
    role: str = ""
    description: str
    version: int = Field(ge=1)
    source: Source
    splits: dict[str, Split]
    grader: str
    answer_kinds: tuple[str, ...] = Field(min_length=1)
    licence: str
    citation: str = ""
    instruction: str = ""
    notes: tuple[str, ...] = ()
    # These two change no number, so no dump contains them, and neither fingerprint nor stage.json.
    # Per picture, for `cptbench plan`; 0 if questions have no picture, None if unknown.
    typical_pixels: SkipJsonSchema[float | None] = Field(default=None, ge=0, exclude=True)
    # The card's folder, for a ./file.py:function that makes its samples.
    folder: SkipJsonSchema[Path | None] = Field(default=None, exclude=True)

    def places(self) -> list[Path]:
        """The files and folders outside this package that its source names: gold may be there."""
        if self.folder is None or isinstance(self.source, Hub | ReasoningGym):
            return []
        return self.source.places(self.folder)

    def located(self) -> Self:
        """The card with a grader that can be found from anywhere.

        ``./grading.py:score`` names a file next to the card, wherever the command is run.
        """
        place = self.grader.rpartition(":")[0]
        if self.folder is None or not place.endswith(".py"):
            return self
        file = (self.folder / place).absolute()
        return self.model_copy(update={"grader": f"{file}:{self.grader.rpartition(':')[2]}"})
