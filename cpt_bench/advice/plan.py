"""What a run will take: a suite's facts and a trainer's recipe, put through the arithmetic.

A trainer's recipes show its kind: the recipe of one that is rewarded for its own replies has a
number of prompts a step, that of one that is taught a size of batches. No trainer is imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from cpt_bench.advice import estimate
from cpt_bench.advice.constants import constants
from cpt_bench.advice.estimate import ASSUMED, GPU, GPUS, Assumed, Settings
from cpt_bench.documents import read_mapping
from cpt_bench.environment import require_training
from cpt_bench.errors import CptBenchError, did_you_mean, explain
from cpt_bench.files import read_json
from cpt_bench.hub.names import parse
from cpt_bench.hub.snapshots import config
from cpt_bench.models.families.weights import Architecture
from cpt_bench.models.start import hub_base
from cpt_bench.plugins import SUITE, Located, builtin, default, listing, locate
from cpt_bench.settings import assigned, value_of
from cpt_bench.stage.command import PREFIX
from cpt_bench.stage.recipes import SMALLER, named, of_suite, recipes, shipped, smaller, typed
from cpt_bench.suite import Suite, open_suite
from cpt_bench.suite.origins import Hub
from cpt_bench.suite.reading import suite_folder

REWARDED, TAUGHT = "prompts_per_step", "batch_size"
"""The setting that only recipes of this kind of trainer have."""
BASE_CONFIG: Final = "base_config.json"
"""Next to ``suite.yaml``: facts of ``config.json``, for a base model that is not shipped."""
MOST: Final = 64
"""GPUs at most among which one is advised to split a model."""
KEPT: Final = ("all", "last", "none")
COUNTED: Final = frozenset({
    "learning_rate", "schedule", "warmup_steps", "weight_decay", "max_grad_norm", "temperature",
    "top_p", "clip", "clip_high", "clip_dual", "average", "lora_alpha", "device", "attention",
    "vllm_mode",
})  # fmt: skip
"""Settings that change what a step computes, and next to nothing of what it costs."""


class Asked(NamedTuple):
    """What is asked about.

    Attributes:
        trainer: Its spec.
        recipe: ``<suite>/<name>`` or a file; None is the trainer's own, or where that does not fit
            the GPUs the first of its smaller ones that does.
        changes: ``key=value``.
        gpu: A key of :data:`~cpt_bench.advice.estimate.GPUS`.
        gpus: How many train.
        keep: Which checkpoints stay.
        base: The checkpoint to start from, a folder or ``org/name[@revision]`` on the hub; None is
            the suite's.
    """

    trainer: str
    recipe: str | None = None
    changes: Sequence[str] = ()
    gpu: str = "a100-80"
    gpus: int = 8
    keep: str = "all"
    base: str | None = None


class Recipe(NamedTuple):
    """A trainer's settings for a suite.

    Attributes:
        name: Of the recipe, in words.
        rewarded: Whether it learns from rewarded rollouts; else it is taught targets.
        settings: What the arithmetic reads.
        uncounted: Other settings, whose cost it does not know.
    """

    name: str
    rewarded: bool
    settings: Settings
    uncounted: tuple[str, ...]


def plan(suite: Suite, asked: Asked) -> dict[str, Any]:
    """The whole plan as JSON: stages, evaluation, memory, disk, hours, and what was assumed.

    Raises:
        CptBenchError: No such trainer, recipe, setting, GPU; or the base model is unknown.
    """
    if asked.gpu not in GPUS:
        todo = did_you_mean(asked.gpu, [*GPUS])
        raise CptBenchError(f"no GPU is called {asked.gpu!r}", todo=todo)
    if asked.keep not in KEPT:
        todo = f"There is: {', '.join(KEPT)}"
        raise CptBenchError(f"no such value: {asked.keep!r}", where="--keep", todo=todo)
    if asked.trainer.startswith(PREFIX):
        todo = "Plan the trainer that ships and is closest to it"
        raise CptBenchError("nothing is known of a command's work", where="--trainer", todo=todo)
    trainer = locate("trainers", asked.trainer)
    model = architecture(suite, asked.base)
    chosen = _recipe(suite, trainer, asked)
    made = _estimate(suite, trainer, chosen, model, asked)
    # A recipe that splits the model has fewer samples a step on one GPU than it is written for.
    suits = made["fits"] and not (asked.gpus == 1 and chosen.settings.sharded)
    if asked.recipe is None and not suits:
        for name in smaller(suite.recipe_folder, trainer.name):
            other = _settings(name, named(name), asked.changes, chosen.rewarded)
            found = _estimate(suite, trainer, other, model, asked)
            if found["fits"] and (asked.gpus == 1 or not other.settings.sharded):
                chosen, made = other, found
                break
    return {
        "suite": suite.label,
        "trainer": asked.trainer,
        "recipe": chosen.name,
        "options": _options(chosen, asked),
        "fits_on": None if made["fits"] else _fits_on(suite, trainer, chosen, model, asked),
        **made,
    }


def _options(chosen: Recipe, asked: Asked) -> list[str]:
    """The options of ``cptbench run`` under which it runs as planned, besides those asked for."""
    split = chosen.settings.sharded or asked.gpus > 1
    given = asked.recipe or chosen.name.endswith(SMALLER)  # a trainer's own need not be named
    options = ["--recipe", chosen.name] if given else []
    return [*options, *(["--launch", f"torchrun --nproc_per_node {asked.gpus}"] if split else [])]


def _fits_on(
    suite: Suite, trainer: Located, chosen: Recipe, model: Architecture, asked: Asked
) -> int | None:
    """On how many GPUs of the same kind it would fit; None: on no number up to :data:`MOST`."""
    for gpus in (2**n for n in range(MOST.bit_length())):
        if gpus > asked.gpus:
            more = _estimate(suite, trainer, chosen, model, asked._replace(gpus=gpus))
            if more["fits"] is True:
                return int(gpus)
    return None


# ---------------------------------------------------------------------------------------- recipes


def _recipe(suite: Suite, trainer: Located, asked: Asked) -> Recipe:
    own = _own(trainer)
    if asked.recipe is None:
        mine = shipped(trainer, suite.recipe_folder, trainer.name)
        mine = of_suite(suite.folder, trainer.name) if mine is None else mine
        name = f"{suite.recipe_folder}/{trainer.name}" if mine is not None else "its own defaults"
        return _settings(name, mine or {}, asked.changes, any(REWARDED in r for r in own))
    found = named(asked.recipe)
    kinds = {key for key in (REWARDED, TAUGHT) if any(key in recipe for recipe in own)}
    other = next((key for key in (REWARDED, TAUGHT) if key in found and key not in kinds), None)
    if kinds and other is not None:
        what = f"{asked.recipe} sets {other}, which {trainer.name} does not have"
        whose = Path(asked.recipe).stem
        whose = next((whose.removesuffix(end) for end in SMALLER if whose.endswith(end)), whose)
        todo = f"Plan it with the trainer that it is for: --trainer {whose}"
        raise CptBenchError(what, where="--recipe", todo=todo)
    return _settings(asked.recipe, found, asked.changes, REWARDED in kinds)


def _own(trainer: Located) -> list[Mapping[str, Any]]:
    """A trainer's recipes for whatever suites."""
    if trainer.folder is None:
        return []
    suites = {spec.partition("/")[0] for spec in recipes()}
    suites |= {file.parent.name for file in trainer.folder.glob(f"recipes/*/{trainer.name}.yaml")}
    found = [shipped(trainer, suite, trainer.name) for suite in sorted(suites)]
    return [recipe for recipe in found if recipe is not None]


def _settings(
    name: str, recipe: Mapping[str, Any], changes: Sequence[str], rewarded: bool = False
) -> Recipe:
    """A recipe with ``--set`` over it."""
    values: dict[str, Any] = dict(recipe)
    for key, text in assigned(changes).items():
        if key not in Settings.model_fields and key not in recipe:
            todo = did_you_mean(key, [*{**Settings.model_fields, **recipe}])
            where = f"--set {key}={text}"
            raise CptBenchError(f"no setting is called {key!r}", where=where, todo=todo)
        known = key in Settings.model_fields
        values[key] = typed(Settings, key, text) if known else value_of(text)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise CptBenchError(explain(error), where=f"settings of {name}") from None
    rewarded = rewarded or REWARDED in values
    unknown = values.keys() - Settings.model_fields.keys() - COUNTED
    # Replies that a taught trainer draws to learn from.
    drawn = {"rollouts"} & values.keys() if not rewarded else set()
    return Recipe(name, rewarded, settings, tuple(sorted(unknown | drawn)))


# --------------------------------------------------------------------------------- the arithmetic


def architecture(suite: Suite, base: str | None = None) -> Architecture:
    """The base model's: from the folder that the suite ships, or from ``base_config.json``.

    Args:
        suite: Whose base model; another listed suite's ``base_config.json`` of the same model does.
        base: Another checkpoint to start from.

    Raises:
        CptBenchError: There is neither, or it is of another kind of model.
    """
    file = next((place for place in _configs(suite, base) if place.is_file()), None)
    if file is None:
        raise CptBenchError(
            f"nothing is known of base model {str(base or suite.base_model.id)!r}",
            where=suite.folder,
            todo=f"Give --base FOLDER, or put its config.json there as {BASE_CONFIG}",
        )
    try:
        return Architecture.of(read_json(file))
    except (KeyError, TypeError, ValueError) as error:
        raise CptBenchError(
            f"describes no model that can be counted (no {error})",
            where=file,
            todo="Give the config.json of a model that writes text",
        ) from None


def _configs(suite: Suite, base: str | None) -> Iterator[Path]:
    hub = parse(base) if base is not None and not Path(base).is_dir() else None
    if hub is not None and hub.id != suite.base_model.id:
        require_training()
        yield config(hub)
        return
    if base is not None and hub is None:
        yield Path(base) / "config.json"
        return
    yield suite.base_path() / "config.json"
    if suite.own is None:  # else the file there describes another model
        yield suite.folder / BASE_CONFIG
    for offer in builtin("suites").values():
        folder = suite_folder(offer.name)
        declared = read_mapping(folder / SUITE).get("base_model")
        named = declared.get("id") if isinstance(declared, dict) else declared
        if named == suite.base_model.id:
            yield folder / BASE_CONFIG
    own = hub_base(suite)
    if own is not None:
        require_training()
        yield config(own)


def pixels(suite: Suite) -> dict[str, float]:
    """Benchmark to the pixels of a picture of it: its card's, or what is assumed."""
    found = {name: suite.card(name).typical_pixels for name in (*suite.sequence, *suite.general)}
    return {name: ASSUMED.pixels if n is None else n for name, n in found.items()}


def _estimate(
    suite: Suite, trainer: Located, recipe: Recipe, model: Architecture, asked: Asked
) -> dict[str, Any]:
    s, gpu, gpus = recipe.settings, GPUS[asked.gpu], asked.gpus
    pictures, longest = pixels(suite), suite.protocol.decoding.max_new_tokens
    given = constants(asked.gpu)
    assumed = given.values._replace(thought=min(given.values.thought, longest))
    joint = trainer.offer is not None and trainer.offer.joint
    stages = [*_stages(suite, recipe, pictures, model, gpu, gpus, joint, assumed)]
    rows = (0, len(suite.sequence)) if joint else range(len(suite.sequence) + 1)
    questions: Counter[str] = Counter()
    for row in rows:
        for name in suite.benchmarks_after(row):
            questions[name] += suite.card(name).splits["test"].n
    thinks, count = recipe.rewarded, len(rows)
    tested = estimate.evaluation(
        questions, pictures, count, thinks, model, gpu, assumed, vllm=False
    )
    most = max(estimate.picture(pictures[t], s, model) for t in suite.sequence)
    sequence = assumed.words + most + (longest if thinks else assumed.target)
    memory = estimate.memory(recipe.rewarded, s, model, gpu, gpus, sequence)
    return {
        "gpus": gpus,
        "gpu": gpu.name,
        "parameters": model.parameters,
        "stages": [stage._asdict() for stage in stages],
        "evaluation": tested._asdict(),
        "memory_gib": {**memory._asdict(), "total": memory.total, "has": gpu.memory},
        "fits": memory.total <= gpu.memory,
        "disk_gib": {
            "checkpoints": estimate.disk(model, len(rows) - 1, asked.keep, s.width),
            "keep": asked.keep,
        },
        "hours": {
            "one after the other": estimate.hours_of(stages, tested, overlap=False),
            "evaluation while training": estimate.hours_of(stages, tested, overlap=True),
        },
        "assumed": {**assumed._asdict(), "pixels": pictures},
        "sources": given.sources,
        "uncounted": list(recipe.uncounted),
    }


def _stages(
    suite: Suite,
    recipe: Recipe,
    pictures: Mapping[str, float],
    model: Architecture,
    gpu: GPU,
    gpus: int,
    joint: bool,
    assumed: Assumed,
) -> Iterator[estimate.StageCost]:
    """What each task takes. In a joint stage ``max_steps`` are shared out by their samples."""
    samples = {task: suite.card(task).splits["train"].n for task in suite.sequence}
    most = recipe.settings.max_steps
    for task, n in samples.items():
        settings = recipe.settings
        if joint and most is not None:
            share = max(1, round(most * n / sum(samples.values())))
            settings = settings.model_copy(update={"max_steps": share})
        yield estimate.stage(
            task, n, pictures[task], recipe.rewarded, settings, model, gpu, gpus, assumed
        )


# ----------------------------------------------------------------------------------- every suite


class Needs(NamedTuple):
    """What a listed suite needs of a machine.

    Attributes:
        suite: Its spec.
        ships: Whether its data and its base model come with it.
        gpu: The smallest GPU on which the default trainer fits; None where it fits none.
        disk: GiB of checkpoints with ``--keep all``.
    """

    suite: str
    ships: bool
    gpu: GPU | None
    disk: float


def needs() -> Iterator[Needs]:
    """What each listed suite needs; suites that cannot be opened or planned are left out."""
    trainer = default("trainers", "plan")
    for row in listing("suites"):
        try:
            suite = open_suite(row.name)
            plans = {
                name: plan(suite, Asked(trainer, gpu=name, gpus=1))
                for name in sorted(GPUS, key=lambda name: GPUS[name].memory)
            }
        except CptBenchError:
            continue
        made = all(not isinstance(card.source, Hub) for card in suite.cards.values())
        fits = next((GPUS[name] for name, made in plans.items() if made["fits"]), None)
        disk = next(iter(plans.values()))["disk_gib"]["checkpoints"]
        yield Needs(row.name, made and suite.base_path().is_dir(), fits, disk)
