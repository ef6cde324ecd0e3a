"""Samples and task cards: one question, and one data set with its splits and grader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from cpt_bench.suite.origins import Declared, Source, Split


class Sample(Declared):
    """One question.

    Attributes:
        id: Unique within its task, stable for a suite version.
        question: The words of the question, options included.
        images: Encoded image files (any format Pillow reads), in the order they are shown.
        answers: Gold answers; the first one is what supervised training writes.
        kind: The answer's kind: ``letter``, ``yesno``, ``number``, ``word`` …
        rationale: A chain of thought that leads to the answer, where the data set has one.
        choices: The options' words, in the order of their letters.
        annotators: What each annotator answered, where a soft score needs them all.
        category: The data set's own group of questions, for scores by group.
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
        instruction: What follows every question of this task, before the protocol's own words.
        notes: What is not known about this data set, or differs from the publication.
        typical_pixels: Of a picture; 0 where questions have none, None where it is not known.
            For ``cptbench plan`` alone: it changes no number, and no fingerprint has it.
        folder: Where the card is, for a ``./file.py:function`` that makes its samples.
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
    answer_kinds: tuple[str, ...]
    licence: str
    citation: str = ""
    instruction: str = ""
    notes: tuple[str, ...] = ()
    typical_pixels: float | None = Field(default=None, ge=0, exclude=True)
    folder: Path | None = Field(default=None, exclude=True)
