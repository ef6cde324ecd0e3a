"""Declared data -> samples without any code: which column is the question, which the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from cpt_bench.suite.base import Declared

OPTIONS = "{options}"
"""In a question: the lettered choices, one a line."""

_NAME = re.compile(r"\{([^{}]+)\}")


class Columns(Declared):
    r"""Where a row holds what a sample needs.

    A *column* is a name, with a path into it where it is nested (``meta.topic``, ``turns.0.text``),
    and a question mark after it where rows may lack it (``tolerance?``).
    A *template* is text with columns in braces: ``"{hint}\n{question}\n{options}"``, where
    ``{options}`` stands for the lettered choices.

    Attributes:
        id: Template; without it the row's number, after the split's name where each split has
            files of its own.
        question: Template.
        answer: Column of the gold answer, or of a list of them; several columns in order.
        choices: Column that holds the list of choices, or a column for each.
        same_choices: The choices, where all questions have the same.
        gold: How ``answer`` names a choice: its ``text``, its ``letter``, its ``index`` from 0, or
            its ``number`` from 1.
        annotators: Column with the list of all annotators' answers.
        images: Columns of pictures: a path next to the table or below the source's root, bytes, or
            what ``datasets`` stores (``bytes``, ``path``). A list of them is several pictures.
            A template where the path has more to it: ``"images/{file}.png"``.
        category: Column of the group, for scores by group.
        rationale: Column of a chain of thought.
        kind: The answer's kind, or ``"{column}"``; without it, the kind is derived from the answer,
            among the card's kinds.
        labels: Column to the words of its values: a list for 0, 1, 2 …, or value to words.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset(
        {"id", "choices", "same_choices", "gold", "annotators", "images", "category"}
        | {"rationale", "kind", "labels"}
    )

    question: str
    answer: tuple[str, ...] = Field(min_length=1)
    id: str = ""
    choices: tuple[str, ...] = ()
    same_choices: tuple[str, ...] = ()
    gold: Literal["", "text", "letter", "index", "number"] = ""
    annotators: str = ""
    images: tuple[str, ...] = ()
    category: str = ""
    rationale: str = ""
    kind: str = ""
    labels: dict[str, tuple[str, ...] | dict[str, str]] = Field(default={})

    @field_validator("answer", "choices", "images", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            column: {_key(k): v for k, v in names.items()} if isinstance(names, Mapping) else names
            for column, names in value.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.choices and self.same_choices:
            raise ValueError("choices and same_choices: give one of the two")
        has_choices = bool(self.choices or self.same_choices)
        if self.gold and not has_choices:
            raise ValueError(f"gold: {self.gold} needs choices or same_choices")
        if OPTIONS in self.question and not has_choices:
            raise ValueError(
                f"question has {OPTIONS}, but neither choices nor same_choices is given"
            )
        if not names_in(self.question) and not self.images:
            raise ValueError("question names no column in braces, and there are no images")
        return self

    def columns(self) -> tuple[str, ...]:
        """The columns that a row must have, paths cut to the column they begin in."""
        whole = (*self.answer, *self.choices, self.annotators, self.category, self.rationale)
        named = [name for name in whole if name]
        for text in (self.question, self.id, self.kind, *self.images):
            found = names_in(text)
            named += found or ([text] if text in self.images else [])
        if self.choices or self.same_choices:
            named = [name for name in named if name != OPTIONS[1:-1] or name in self.choices]
        return tuple(dict.fromkeys(name.removesuffix("?") for name in named))


def _key(value: Any) -> str:
    """A value as rows show it: truth values are written yes and no."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def names_in(template: str) -> list[str]:
    """The columns in the braces of a template."""
    return _NAME.findall(template)


class Among(Declared):
    """A filter's condition on a number."""

    at_least: float | None = None
    at_most: float | None = None


Value = str | int | float | bool | None


def _form_of(condition: Any) -> str:
    """Which of the forms of a condition is given: the others' complaints would hide its own."""
    if isinstance(condition, Mapping | Among):
        return "range"
    return "list" if isinstance(condition, list | tuple) else "value"


Condition = Annotated[
    Annotated[Value, Tag("value")]
    | Annotated[tuple[Value, ...], Tag("list")]
    | Annotated[Among, Tag("range")],
    Discriminator(_form_of),
]


class SplitFiles(Declared):
    """The files of one split.

    Attributes:
        files: Tables, one after the other; of an image folder, the folder.
        gold: A table with the answers, where they are not with the questions: it may be private,
            and is joined by ``id``. The answer columns are then its.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"gold"})

    files: tuple[str, ...] = Field(min_length=1)
    gold: str = ""


class Files(Declared):
    """Samples from files: tables with a row a question, or a folder of pictures.

    Attributes:
        kind: The format. ``json`` is one array of rows; ``imagefolder`` is a folder of pictures, in
            folders named after their labels or with a ``metadata.csv`` or ``metadata.jsonl``: its
            rows have ``image``, ``label`` and what the metadata has.
        root: The folder in which files and pictures are named, relative to the card.
        files: The tables of every split that ``splits`` does not name: the card's ``draw`` shares
            their rows out.
        splits: Split to its files.
        map: Where a row holds what.
        where: Column to the value it must have, to a list of which it must be one, or to
            ``at_least`` and ``at_most``; other rows are left out.
        no_picture: Questions may have no picture; otherwise one without is refused.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"root", "files", "splits", "where", "no_picture"})

    kind: Literal["jsonl", "json", "csv", "parquet", "arrow", "imagefolder"]
    map: Columns
    root: str = ""
    files: tuple[str, ...] = ()
    splits: dict[str, SplitFiles] = Field(default={})
    where: dict[str, Condition] = Field(default={})
    no_picture: bool = False

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("splits", mode="before")
    @classmethod
    def _files_alone(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            name: dict(_split(given)) if _short(given) else given for name, given in value.items()
        }

    def of(self, split: str) -> SplitFiles | None:
        """The files of a split; None where the card names none."""
        if split in self.splits:
            return self.splits[split]
        return SplitFiles(files=self.files) if self.files else None

    def places(self, above: Path) -> list[Path]:
        """The files and folders that it reads rows from, if they exist."""
        parts = [part for split in (*self.splits, "") if (part := self.of(split))]
        named = [name for part in parts for name in (*part.files, part.gold) if name]
        found = (above / self.root / name for name in dict.fromkeys(named))
        return [place.resolve() for place in found if place.exists()]


def _short(given: Any) -> bool:
    return isinstance(given, str | list) or (
        isinstance(given, Mapping) and isinstance(given.get("files"), str)
    )


def _split(given: Any) -> Iterator[tuple[str, Any]]:
    rest = dict(given) if isinstance(given, Mapping) else {"files": given}
    files = rest.pop("files")
    yield "files", (files,) if isinstance(files, str) else files
    yield from rest.items()
