"""A trainer's hyper-parameters: its defaults, the suite's recipe, then ``--set``."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cpt_bench.errors import CptBenchError, did_you_mean, explain
from cpt_bench.plugins import Resolved
from cpt_bench.settings import value_of
from cpt_bench.trainer import Privileges, Trainer, TrainerConfig


def recipe(suite: str, trainer: Resolved) -> dict[str, Any]:
    """The recipe that ships beside a trainer for a suite; empty where there is none.

    It is ``recipes/<suite>/<name>.yaml`` in the folder of the trainer's code, for the trainers of
    this package and of others alike.
    """
    file = trainer.folder / "recipes" / suite / f"{trainer.name}.yaml"
    if not file.is_file():
        return {}
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")) or {})


def named(spec: str) -> dict[str, Any]:
    """A recipe by name (``cpt7/rft-lora``) or as a YAML file.

    Raises:
        CptBenchError: There is none, or it is not a mapping.
    """
    file = Path(spec)
    if not file.is_file():
        suite, _, name = spec.partition("/")
        folder = importlib.resources.files("cpt_bench.trainers") / "recipes"
        known = sorted(
            f"{s.name}/{f.name.removesuffix('.yaml')}"
            for s in folder.iterdir()
            if s.is_dir()
            for f in s.iterdir()
            if f.name.endswith(".yaml")
        )
        if spec not in known:
            raise CptBenchError(f"no recipe is called {spec!r}", todo=did_you_mean(spec, known))
        file = Path(str(folder / suite / f"{name}.yaml"))
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise CptBenchError("not valid YAML", where=file) from error
    if not isinstance(data, dict):
        raise CptBenchError("not a mapping of settings to values", where=file)
    return data


def configure(
    trainer: type[Trainer], shipped: dict[str, Any], overrides: Sequence[str]
) -> TrainerConfig:
    """The trainer's config from a recipe and ``key=value`` overrides.

    Raises:
        CptBenchError: An unknown key, or a value of the wrong type.
    """
    known = list(trainer.Config.model_fields)
    values = dict(shipped)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise CptBenchError(f"--set {override!r} is not key=value")
        if key not in known and trainer.Config.model_config.get("extra") != "allow":
            raise CptBenchError(
                f"{trainer.__name__} has no setting {key!r}",
                where=f"--set {override}",
                todo=did_you_mean(key, known) if known else "It has no settings",
            )
        values[key] = value_of(text)
    try:
        return trainer.Config.model_validate(values)
    except ValidationError as error:
        raise CptBenchError(explain(error), where=f"settings of {trainer.__name__}") from None


def declare(settings: Sequence[str]) -> Privileges:
    """Privileges from ``key=value``, for trainers that are commands."""
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        values[key] = value_of(text) if equals else True
    try:
        return Privileges.model_validate(values)
    except ValidationError as error:
        raise CptBenchError(explain(error), where="--privilege") from None
