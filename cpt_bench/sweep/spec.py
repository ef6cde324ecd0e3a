"""The sweep file: a YAML document, checked key by key, and the runs it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError, did_you_mean, explain
from cpt_bench.plugins import default
from cpt_bench.settings import assignments, spelled

DEFAULT = "default"
"""The name of the suite's own order."""

Setting = bool | int | FiniteFloat | str | None
Settings = dict[str, Setting | list[Setting]]


class Strict(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Block(Strict):
    """Runs that are every combination of what is listed here.

    Attributes:
        trainers: As for ``cptbench run --trainer``.
        recipes: As for ``--recipe``; the trainer's own for this suite when none is given.
        learning_rates: The recipe's when none is given.
        set: Settings of all of these runs, as for ``--set``.
        variants: Settings in which the runs differ: one mapping a variant.
        seeds: The sweep's when none are given.
        orders: Names of orders; ``default`` is the suite's own.
        privileges: Of ``cmd:`` trainers, as for ``--privilege``.
    """

    trainers: list[str] = Field(min_length=1)
    recipes: list[str] = []
    learning_rates: list[FiniteFloat] = []
    set: Settings = {}
    variants: list[Settings] = []
    seeds: list[int] = []
    orders: list[str] = [DEFAULT]
    privileges: list[str] = []


class Resources(Strict):
    """What one run takes of a Ray cluster.

    Attributes:
        cpus: Cores; from two on, a stage is evaluated while the next one trains.
        gpus: GPUs.
    """

    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)


class Sweep(Strict):
    """A sweep file.

    Attributes:
        suite: The benchmark; ``tier`` and ``protocol`` as for ``cptbench run``.
        tier: Its size.
        protocol: Its evaluation protocol.
        base: Another start checkpoint.
        limit: Only the first so many samples of each split.
        threads: Of each process.
        budget: Training prompts a stage may draw.
        stage_timeout: Seconds after which a stage's training is ended.
        memory_limit: GiB of memory at which it is ended.
        general: Benchmarks of other harnesses.
        engine: What answers; ``engine_set`` are its settings.
        keep: Which checkpoints stay when the sweep is over.
        retries: How often a run whose worker was lost is started again.
        resources: Of one run, on a Ray cluster.
        seeds: Of every block that names none.
        orders: Name to task order.
        runs: Blocks of runs; earlier ones start first, and a run that is in two counts once.
    """

    suite: str = Field(default_factory=lambda: default("suites", "run"))
    tier: str | None = None
    protocol: str | None = None
    base: Path | None = None
    limit: int | None = Field(default=None, ge=1)
    threads: int = Field(default=1, ge=1)
    budget: int | None = Field(default=None, ge=1)
    stage_timeout: FiniteFloat | None = Field(default=None, gt=0)
    memory_limit: FiniteFloat | None = Field(default=None, gt=0)
    general: list[str] = []
    engine: str = "transformers"
    engine_set: Settings = {}
    keep: str = Field(default="none", pattern="^(all|last|none)$")
    retries: int = Field(default=2, ge=0)
    resources: Resources = Resources()
    seeds: list[int] = [0]
    orders: dict[str, list[str]] = {}
    runs: list[Block] = Field(min_length=1)


class Cell(NamedTuple):
    """One run, as the file words it.

    Attributes:
        trainer: Its spec.
        recipe: Its recipe; None is the trainer's own.
        settings: ``key=value``, in the order given.
        seed: Of the run.
        order: The tasks; None is the suite's order.
        privileges: What a ``cmd:`` trainer declares.
        where: The block it came from, for errors.
    """

    trainer: str
    recipe: str | None
    settings: tuple[str, ...]
    seed: int
    order: tuple[str, ...] | None
    privileges: tuple[str, ...]
    where: str


def read_sweep(file: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        CptBenchError: It is not one; the line names the key and what is wrong with it.
    """
    try:
        sweep = Sweep.model_validate(read_mapping(file))
    except ValidationError as error:
        raise _refused(error, file) from None
    for i, block in enumerate(sweep.runs):
        for name in block.orders:
            if name != DEFAULT and name not in sweep.orders:
                known = [DEFAULT, *sweep.orders]
                raise CptBenchError(
                    f"no order is called {name!r}",
                    where=f"{file}: runs.{i}.orders",
                    todo=did_you_mean(name, known),
                )
    return sweep


def _refused(error: ValidationError, file: Path) -> CptBenchError:
    """All mistakes, or an unknown key and the one that was perhaps meant."""
    unknown = [e for e in error.errors(include_url=False) if e["type"] == "extra_forbidden"]
    if not unknown:
        return CptBenchError(explain(error), where=file)
    first = unknown[0]
    *above, key = first["loc"]
    model: type[BaseModel] = Sweep
    if above and above[0] == "runs":
        model = Block
    elif above and above[0] == "resources":
        model = Resources
    place = ".".join(map(str, above))
    return CptBenchError(
        f"no such key: {key!r}",
        where=f"{file}: {place}" if place else file,
        todo=did_you_mean(str(key), [*model.model_fields]),
    )


def cells(sweep: Sweep) -> Iterator[Cell]:
    """The runs of a sweep, block by block; within one, all of a seed before the next seed."""
    for i, block in enumerate(sweep.runs):
        rates: list[float | None] = [*block.learning_rates] or [None]
        recipes: list[str | None] = [*block.recipes] or [None]
        for seed in block.seeds or sweep.seeds:
            for order in block.orders:
                for trainer in block.trainers:
                    for recipe in recipes:
                        for variant in block.variants or [{}]:
                            for rate in rates:
                                settings = [*assignments(block.set), *assignments(variant)]
                                if rate is not None:
                                    settings.append(f"learning_rate={spelled(rate)}")
                                tasks = None if order == DEFAULT else tuple(sweep.orders[order])
                                yield Cell(
                                    trainer, recipe, tuple(settings), seed, tasks,
                                    tuple(block.privileges), f"runs.{i}",
                                )  # fmt: skip
