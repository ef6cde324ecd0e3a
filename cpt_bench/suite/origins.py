"""Where samples come from, as declared data: generators, tables on the hub, splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cpt_bench.suite.base import Declared
from cpt_bench.suite.columns import Columns, Condition, Files


class Generator(Declared):
    """Samples that a function makes: ``target`` is called with a split, a size and ``options``.

    Attributes:
        target: ``module:function``, or ``./file.py:function`` next to the card.
        options: Passed to it by name.
        files: Files and folders that it reads, relative to the card. They are closed to trainers,
            as is what it is seen to open, and what its options name.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"files"})

    kind: Literal["generator"]
    target: str
    options: dict[str, Any] = Field(default={})
    files: tuple[str, ...] = ()

    def places(self, above: Path) -> list[Path]:
        """The files and folders that it names and that exist, next to the card or absolute."""
        named = [above / text for text in _texts(self.options) if 0 < len(text) < 1000]
        # '.' among the options need not mean a folder.
        inside = [place for place in named if not above.absolute().is_relative_to(place.absolute())]
        given = [*(above / file for file in self.files), *inside]
        return [place.resolve() for place in given if place.exists()]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


class ReasoningGym(Declared):
    """Samples of a task of the package ``reasoning-gym``, made from a seed.

    Attributes:
        version: The package's version: another one makes other questions from the same seed.
        task: The name of its data set, as ``chain_sum``.
        settings: The data set's own settings; those that are left out are the package's defaults.
        seeds: Split to seed. Question ``i`` is drawn from ``seed + i``, so seeds that are closer
            than a split is long give the same questions twice.
        repeats: Whether a question may occur more than once in a split.
        most_alike: The largest share of a split's questions that may have the same answer.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"repeats", "most_alike"})

    kind: Literal["reasoning-gym"]
    version: str
    task: str
    settings: dict[str, Any] = Field(default={})
    seeds: dict[str, int]
    repeats: bool = False
    most_alike: float = Field(default=0.0, ge=0, le=1)


class Table(Declared):
    """One table on the hub that may contain a split.

    Attributes:
        repo: The data set's id.
        revision: A pinned commit, if known.
        configs: Configurations to read, one after another; empty for the default one.
        split: The split's name there.
        rows: How many rows it must have.
        columns: Column to type, if they differ from the split's (see :class:`HubSplit`).
    """

    repo: str
    revision: str | None = None
    configs: tuple[str, ...] = ()
    split: str
    rows: int | None = Field(default=None, gt=0)
    columns: dict[str, str] | None = None


class Join(Declared):
    """Images in a separate table: ``on`` (a column of the split) = ``key`` (of the images)."""

    config: str
    split: str
    on: str
    key: str
    image: str = "image"


class HubSplit(Declared):
    """The source of one split.

    Attributes:
        tables: Tables in the order to try; the first that can be read and fits is used.
        columns: The columns to read, with their types: ``string``, ``int``, ``bool``, ``image`` or
            ``list<...>`` of one; ``image|string`` where pictures may be given by their paths. Other
            columns are allowed. Without any, those that ``map`` names, of whatever type.
        join: The table of the images, if they are in a separate one.
        no_picture: Questions may have no picture; otherwise one without a picture is refused.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"no_picture"})

    tables: tuple[Table, ...] = Field(min_length=1)
    columns: dict[str, str] = Field(default={})
    join: Join | None = None
    no_picture: bool = False


class Hub(Declared):
    """Samples from published data sets, prepared once with ``cptbench data prepare``.

    Attributes:
        target: Turns a row into a sample: (row, index, split, options) -> Sample, or None to leave
            the row out.
        map: In place of ``target``: which columns hold what.
        where: With ``map``: which rows to use, as for files.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"map", "where"})

    kind: Literal["hub"]
    target: str = ""
    options: dict[str, Any] = Field(default={})
    splits: dict[str, HubSplit]
    map: Columns | None = None
    where: dict[str, Condition] = Field(default={})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.target) == (self.map is not None):
            raise ValueError("give a target or a map, and not both")
        for name, split in self.splits.items():
            if not split.columns and self.map is None:
                raise ValueError(f"splits.{name}.columns is needed where there is no map")
        return self


Source = Annotated[Generator | Hub | Files | ReasoningGym, Field(discriminator="kind")]


class Draw(Declared):
    """A seeded rule for part of a split: rows ranked by SHA-256 of ``seed`` NUL ``id``.

    The split is the ``n`` rows from rank ``skip`` on, in rank order: any prefix is a fair sample.

    Attributes:
        seed: Of the ranks.
        skip: The first rank.
        by: A column, or a template of several: rows that share its value are ranked together, so
            that two splits have no value in common as long as none ends inside a group.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"by"})

    seed: int
    skip: int = Field(default=0, ge=0)
    by: str = ""


class Base(Declared):
    """A suite's base model.

    Attributes:
        id: A folder next to ``suite.yaml``, or ``org/name`` on the hub.
        revision: A commit, tag or branch there; None: the main branch when it is first fetched.
        sha256: Digest of its weights, as ``run.json`` has it; None if it was not known when the
            suite was written: then it is recorded when the model is first fetched.
    """

    id: str = Field(min_length=1)
    revision: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Split(Declared):
    """A published list of samples.

    Attributes:
        n: The number of samples.
        sha256: SHA-256 over ids, questions, images and gold; None if the data could not be read
            when the card was written: then it is recorded when the split is first prepared.
        draw: The rule that selects rows, if not all are used.
        ids: SHA-256 over the ids in order, if they are known without the data.
        in_train: How many questions of a test split may be in the train split too, where the data
            are published so; more are refused.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"draw", "ids", "in_train"})

    n: int = Field(gt=0)
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    draw: Draw | None = None
    ids: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    in_train: int = Field(default=0, ge=0)
