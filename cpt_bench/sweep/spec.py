"""The sweep file: a YAML document, checked key by key, and the runs that it describes."""

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
    """Refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Block(Strict):
    """A block of runs: all combinations of the values listed here.

    Attributes:
        trainers: As for ``cptbench run --trainer``.
        recipes: As for ``--recipe``; by default, the trainer's own recipe for this suite.
        learning_rates: By default, the recipe's.
        set: Settings of all of these runs, as for ``--set``.
        variants: Settings in which the runs differ: one mapping per variant.
        seeds: By default, the sweep's.
        orders: Names of orders; ``default`` is the suite's own.
        privileges: For ``cmd:`` trainers, as for ``--privilege``.
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
    """The resources of one run on a Ray cluster.

    Attributes:
        cpus: Cores; with at least two, a stage is evaluated while the next one trains.
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
        base: Another checkpoint to start from.
        limit: Use only the first ``limit`` samples of each split.
        threads: Threads of each process.
        budget: How many training prompts a stage may draw.
        stage_timeout: Seconds after which a stage's training is ended.
        memory_limit: GiB of memory at which it is ended.
        general: Benchmarks of other harnesses.
        engine: The engine that answers; ``engine_set`` are its settings.
        save_every: Steps after which a stage saves a state to go on from after an interruption.
        keep: Which checkpoints are kept when the sweep has finished.
        retries: How often a run whose worker was lost is restarted.
        resources: Resources of one run on a Ray cluster.
        seeds: The seeds of every block that has none.
        orders: Name to task order.
        runs: Blocks of runs; earlier ones start first, and a run in two blocks is run once.
    """

    suite: str = Field(default_factory=lambda: default("suites", "run"))
    tier: str | None = None
    protocol: str | None = None
    base: str | None = None
    limit: int | None = Field(default=None, ge=1)
    threads: int = Field(default=1, ge=1)
    budget: int | None = Field(default=None, ge=1)
    stage_timeout: FiniteFloat | None = Field(default=None, gt=0)
    memory_limit: FiniteFloat | None = Field(default=None, gt=0)
    general: list[str] = []
    engine: str = "transformers"
    engine_set: Settings = {}
    save_every: int | None = Field(default=None, ge=1)
    keep: str = Field(default="none", pattern="^(all|last|none)$")
    retries: int = Field(default=2, ge=0)
    resources: Resources = Resources()
    seeds: list[int] = [0]
    orders: dict[str, list[str]] = {}
    runs: list[Block] = Field(min_length=1)


class Cell(NamedTuple):
    """One run, as described in the file.

    Attributes:
        trainer: Its spec.
        recipe: Its recipe; None: the trainer's own.
        settings: ``key=value``, in the order given.
        seed: The run's seed.
        order: The task order; None: the suite's.
        privileges: The privileges of a ``cmd:`` trainer.
        where: The block that it is from, for errors.
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
        CptBenchError: It is not valid; the message names the key and the problem.
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
    """All errors, or for an unknown key a suggestion."""
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
    """The runs of a sweep, block by block; within a block, sorted by seed."""
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
