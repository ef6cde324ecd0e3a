"""A suite: an ordered list of tasks, general benchmarks, a protocol and a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.files import digest_json
from cpt_bench.suite.base import Declared
from cpt_bench.suite.cards import TaskCard
from cpt_bench.suite.origins import Base
from cpt_bench.suite.packaged import Packaged, place_of
from cpt_bench.suite.protocol import Protocol
from cpt_bench.suite.variants import Variant


class Suite(Declared):
    """A versioned benchmark: an ordered list of tasks, general benchmarks, protocol, base model."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    title: str
    version: str
    description: str
    base_model: Base
    sequence: tuple[str, ...] = Field(min_length=1)
    general: tuple[str, ...] = ()
    protocol: Protocol
    cards: dict[str, TaskCard]
    tier: str = ""
    base_package: Packaged | None = None
    folder: Path = Field(exclude=True)
    # Which folder of recipes is for it, if not that of its name; it changes no number by itself.
    recipes: SkipJsonSchema[str] = Field(default="", exclude=True)
    variant: Variant = Field(default=Variant(), exclude=True)
    # Of a variant from another base model: the same from the suite's own.
    own: SkipJsonSchema[Suite | None] = Field(default=None, exclude=True)

    ADDED: ClassVar[frozenset[str]] = frozenset({"tier", "base_package"})

    @field_validator("base_model", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"id": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in (*self.sequence, *self.general):
            if name not in self.cards:
                raise ValueError(f"no card for {name!r}")
        repeated = {n for n in self.sequence if self.sequence.count(n) > 1}
        if repeated:
            raise ValueError(f"sequence names {sorted(repeated)} more than once")
        for name in self.sequence:
            for split in ("train", "test"):
                if split not in self.cards[name].splits:
                    raise ValueError(f"task {name!r} has no {split} split")
        return self

    @property
    def place(self) -> Path:
        """The path, with the variant, from which ``load_suite`` reads exactly this suite."""
        return self.place_of(self.variant)

    def place_of(self, variant: Variant) -> Path:
        """The path from which ``load_suite`` reads another variant of this suite."""
        folder = self.folder if self.folder.name else self.folder.absolute()  # of '.'
        return folder.with_name(f"{folder.name}@{variant.tag}") if variant.tag else folder

    @property
    def recipe_folder(self) -> str:
        """The folder, among a trainer's recipes, with those for this suite."""
        return self.recipes or self.name

    @property
    def label(self) -> str:
        """``cpt7-paper-direct-mini``: the name, with all parts that are not the default."""
        return "-".join(filter(None, [self.name, *self.variant.tag.replace("+", ".").split(".")]))

    def general_after(self, stage: int) -> bool:
        """Whether general benchmarks are measured after ``stage``; 0 is the base model."""
        every = self.protocol.general == "every-stage"
        return every or stage in (0, len(self.sequence))

    def benchmarks_after(self, stage: int) -> tuple[str, ...]:
        """Benchmarks evaluated after a stage (0: the base model): tasks, then general ones."""
        return self.sequence + (self.general if self.general_after(stage) else ())

    def card(self, name: str) -> TaskCard:
        if name not in self.cards:
            raise CptBenchError(
                f"suite {self.name} has no task {name!r}", todo=did_you_mean(name, [*self.cards])
            )
        return self.cards[name]

    def base_path(self) -> Path:
        """The base model's folder, for suites that ship it or have it from a package.

        A hub id is returned as it is.
        """
        if self.base_package is not None:
            return place_of(self.base_package)
        shipped = self.folder / self.base_model.id
        return shipped if shipped.is_dir() else Path(self.base_model.id)

    def reordered(self, order: tuple[str, ...]) -> Self:
        """The same suite in another task order."""
        if sorted(order) != sorted(self.sequence):
            raise CptBenchError(
                f"--order {','.join(order)} is not a permutation of {','.join(self.sequence)}"
            )
        return self.model_copy(update={"sequence": order})

    def fingerprint(self) -> str:
        """SHA-256 of everything that the suite fixes, data hashes included.

        The base model counts by its name alone: the digest of its weights is in every key of a
        run's ledger, and a digest that is added to a suite later leaves the suite what it was. A
        variant from another base model is the same suite.
        """
        if self.own is not None:
            return self.own.fingerprint()
        fixed = self.model_dump(mode="json", exclude={"sequence"})
        return digest_json({**fixed, "base_model": self.base_model.id})
