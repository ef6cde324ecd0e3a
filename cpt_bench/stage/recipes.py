"""A trainer's hyper-parameters: its defaults, the suite's recipe, then ``--set``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError, did_you_mean, explain
from cpt_bench.plugins import Located, Resolved, folders
from cpt_bench.settings import assigned, field_type, value_of
from cpt_bench.trainer import Privileges, Trainer, TrainerConfig

RECIPES = "recipes"
"""In the folder of a trainer's code: ``recipes/<suite>/<trainer>.yaml``."""

SMALLER = ("-1gpu", "-lora")
"""Endings of a trainer's recipes for fewer GPUs than its own: all weights on one GPU, and adapters.

Which of them fits depends on the size of the base model: ``cptbench plan`` chooses.
"""


def recipe(suite: str, trainer: Resolved | Located, home: Path | None = None) -> dict[str, Any]:
    """The recipe that comes with a trainer for a suite; empty where there is none.

    It is ``recipes/<suite>/<name>.yaml`` in the folder of the trainer's code, for built-in trainers
    and plug-ins alike, or ``recipes/<name>.yaml`` in the suite's own folder, ``home``.
    """
    found = shipped(trainer, suite, trainer.name)
    return (of_suite(home, trainer.name) if found is None else found) or {}


def of_suite(home: Path | None, name: str) -> dict[str, Any] | None:
    """A recipe from a suite's own folder; None where there is none of that name."""
    file = (home or Path()) / RECIPES / f"{name}.yaml"
    return read_mapping(file, "settings") if home and file.is_file() else None


def other_recipes(suite: str, name: str) -> str:
    """What to say where a suite has no recipe of a trainer: which suites have one."""
    known = [spec for spec in recipes() if spec.rpartition("/")[2] == name]
    return f" or --recipe {known[0]}: suite {suite} has no recipe of {name}" if known else ""


def smaller(suite: str, trainer: str) -> list[str]:
    """The recipes of a trainer for fewer GPUs than its own, by name, larger ones first."""
    known = recipes()
    return [name for end in SMALLER if (name := f"{suite}/{trainer}{end}") in known]


def shipped(trainer: Resolved | Located, suite: str, name: str) -> dict[str, Any] | None:
    """A recipe from the folder of a trainer's code; None where there is none of that name."""
    if trainer.folder is None:
        return None
    file = trainer.folder / RECIPES / suite / f"{name}.yaml"
    return read_mapping(file, "settings") if file.is_file() else None


def named(spec: str) -> dict[str, Any]:
    """A recipe by name (``cpt7/rft-lora``) or as a YAML file.

    Names are those of the recipes that ship, and of those in folders of plug-ins.

    Raises:
        CptBenchError: There is none, or it is not a mapping.
    """
    file = Path(spec)
    if not file.is_file():
        known = recipes()
        if spec not in known:
            raise CptBenchError(
                f"no recipe is called {spec!r}", todo=did_you_mean(spec, sorted(known))
            )
        file = known[spec]
    return read_mapping(file, "settings")


def recipes() -> dict[str, Path]:
    """``<suite>/<name>`` to its file; shipped recipes come before those of plug-ins."""
    found: dict[str, Path] = {}
    for folder in folders("trainers"):
        for file in sorted((folder / RECIPES).glob("*/*.yaml")):
            found.setdefault(f"{file.parent.name}/{file.stem}", file)
    return found


def configure(
    trainer: type[Trainer], recipe: dict[str, Any], overrides: Sequence[str], lacking: str = ""
) -> TrainerConfig:
    """The trainer's config from a recipe and ``key=value`` overrides.

    Args:
        trainer: The class.
        recipe: Its settings for the suite.
        overrides: ``--set``.
        lacking: What to do where a setting without a default is in neither.

    Raises:
        CptBenchError: An unknown key, or a value of the wrong type.
    """
    known, values = list(trainer.Config.model_fields), dict(recipe)
    open_ended = trainer.Config.model_config.get("extra") == "allow"
    for key, text in assigned(overrides).items():
        if key not in known and not open_ended:
            raise CptBenchError(
                f"{trainer.__name__} has no setting {key!r}",
                where=f"--set {key}={text}",
                todo=did_you_mean(key, known) if known else "It has no settings",
            )
        values[key] = typed(trainer.Config, key, text)
    try:
        return trainer.Config.model_validate(values)
    except ValidationError as error:
        missing = [str(p["loc"][0]) for p in error.errors() if p["type"] == "missing"]
        todo = f"Give --set {missing[0]}=VALUE{lacking}" if missing else ""
        where = f"settings of {trainer.__name__}"
        raise CptBenchError(explain(error), where=where, todo=todo) from None


def typed(model: type[BaseModel], key: str, text: str) -> Any:
    """The value of a setting, parsed as the type of its field in ``model``."""
    field = model.model_fields.get(key)
    return value_of(text, Any if field is None else field_type(field))


def declare(settings: Sequence[str]) -> Privileges:
    """Privileges from ``key=value``, for ``cmd:`` trainers; a key alone means ``true``."""
    whole = [setting if "=" in setting else f"{setting}=true" for setting in settings]
    given = assigned(whole, "--privilege")
    values = {key: typed(Privileges, key, text) for key, text in given.items()}
    try:
        return Privileges.model_validate(values)
    except ValidationError as error:
        raise CptBenchError(explain(error), where="--privilege") from None
