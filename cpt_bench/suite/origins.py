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
    """Data from a card: unknown keys are errors, values are immutable.

    A dump leaves out the fields in ``ADDED`` that are not set: they were added after cards had
    been fingerprinted, and a card that does not use them must have the same fingerprint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ADDED: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v or k not in self.ADDED}


class Generator(Declared):
    """Samples that a function makes: ``target`` is called with a split, a size and ``options``."""

    kind: Literal["generator"]
    target: str  # module:function, or ./file.py:function next to the card
    options: dict[str, Any] = {}


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
            ``list<...>`` of one. Other columns are allowed.
        join: The table of the images, if they are in a separate one.
        no_picture: Questions may have no picture; otherwise one without a picture is refused.
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
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"draw", "ids"})

    n: int = Field(gt=0)
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    draw: Draw | None = None
    ids: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
