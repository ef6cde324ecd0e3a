"""Where samples come from, as declared data: generators, tables on the hub, splits."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Declared(BaseModel):
    """Data from a card: unknown keys are mistakes, values do not change.

    A dump leaves out the fields in ``ADDED`` that say nothing: they came after cards were
    fingerprinted, and a card that does not use them is still the same card.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ADDED: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v or k not in self.ADDED}


class Generator(Declared):
    """Samples that a function makes: ``target`` is called with a split, a size and ``options``.

    ``target`` is ``module:function``, or ``./file.py:function`` next to the card.
    """

    kind: Literal["generator"]
    target: str
    options: dict[str, Any] = {}


class Table(Declared):
    """One place on the hub that may hold a split.

    Attributes:
        repo: The data set's id.
        revision: A pinned commit, where one is known.
        configs: Configurations to read, one after another; none for the default one.
        split: The split's name there.
        rows: How many rows it must have.
        columns: Column to type, where they differ from the split's (see :class:`HubSplit`).
    """

    repo: str
    revision: str | None = None
    configs: tuple[str, ...] = ()
    split: str
    rows: int | None = Field(default=None, gt=0)
    columns: dict[str, str] | None = None


class Join(Declared):
    """Images in a table of their own: ``on`` (a column of the split) = ``key`` (of the images)."""

    config: str
    split: str
    on: str
    key: str
    image: str = "image"


class HubSplit(Declared):
    """Where one split comes from.

    Attributes:
        tables: Places in the order to try; the first that answers and fits is used.
        columns: The columns that are read, by type: ``string``, ``int``, ``bool``, ``image`` or
            ``list<...>`` of one. Other columns may be there.
        join: Where the images are, when they are elsewhere.
        no_picture: A question may have no picture; without this, one that has none is refused.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"no_picture"})

    tables: tuple[Table, ...] = Field(min_length=1)
    columns: dict[str, str]
    join: Join | None = None
    no_picture: bool = False


class Hub(Declared):
    """Samples from published data sets, prepared once with ``cptbench data prepare``.

    ``target`` turns a row into a sample: (row, index, split, options) -> Sample, or None to leave
    the row out.
    """

    kind: Literal["hub"]
    target: str
    options: dict[str, Any] = {}
    splits: dict[str, HubSplit]


Source = Annotated[Generator | Hub, Field(discriminator="kind")]


class Draw(Declared):
    """A seeded rule for part of a split: rows ranked by SHA-256 of ``seed`` NUL ``id``.

    The split is the ``n`` rows from rank ``skip`` on, in rank order: any prefix is a fair sample.
    """

    seed: int
    skip: int = Field(default=0, ge=0)


class Split(Declared):
    """A published list of samples.

    Attributes:
        n: How many.
        sha256: SHA-256 over ids, questions, images and gold; None where the data could not be read
            when the card was written: then it is recorded when the split is first prepared.
        draw: Which rows, when not all.
        ids: SHA-256 over the ids in order, where they are known without the data.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"draw", "ids"})

    n: int = Field(gt=0)
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    draw: Draw | None = None
    ids: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
