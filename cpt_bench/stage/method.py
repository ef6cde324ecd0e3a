"""A trainer with its settings, as plain data: what a run needs to know about it.

Importing a trainer means importing torch, transformers and trl, some eight seconds of CPU time.
The fork server does that anyway (:mod:`cpt_bench.worker.process`), so the trainer is inspected
there, in a child process, and the command itself stays light.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import locate
from cpt_bench.stage import command
from cpt_bench.stage.recipes import configure, declare, named, other_recipes, recipe
from cpt_bench.stage.trainers import trainer_of
from cpt_bench.trainer import Needs, Privileges
from cpt_bench.worker.process import Worker, warm_up


class Method(NamedTuple):
    """A trainer, its settings and what it declared under them.

    Attributes:
        name: A short name fit for a folder and a table.
        origin: What distinguishes methods of the same name; ``spec`` finds the method again.
        config: All of its settings, as JSON.
        privileges: What it uses beyond the current task.
        needs: What must be there for it to train.
    """

    name: str
    origin: dict[str, str]
    config: dict[str, Any]
    privileges: Privileges = Privileges()
    needs: Needs = Needs()


class Asked(NamedTuple):
    """A user's choice of a trainer and its settings.

    Attributes:
        spec: ``--trainer``.
        suite: The suite's name; its recipe applies.
        settings: ``--set``, each ``key=value``.
        declared: ``--privilege``, for ``cmd:`` trainers.
        recipe: ``--recipe``, in place of the suite's.
        home: The suite's folder, which may hold recipes of its own.
    """

    spec: str
    suite: str
    settings: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    recipe: str | None = None
    home: Path | None = None


def find_method(asked: Asked) -> Method:
    """The requested method, checked before anything heavy starts.

    Raises:
        CptBenchError: No such trainer, setting, recipe or privilege, or it cannot be imported.
    """
    if asked.spec.startswith(command.PREFIX):
        return describe(asked)
    locate("trainers", asked.spec)  # report a mistyped name before importing anything heavy
    if asked.declared:
        raise CptBenchError(
            "--privilege is for cmd: trainers; a class declares its own",
            where=f"--trainer {asked.spec}",
        )
    if asked.recipe:
        named(asked.recipe)
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        what = f"looking at trainer {asked.spec}"
        found: Method = Worker(_described, (asked,), Path(folder) / "log", what).result()
    return found


def describe(asked: Asked) -> Method:
    """:func:`find_method` in this process: the trainer is imported here."""
    found = trainer_of(asked.spec)
    shipped = named(asked.recipe) if asked.recipe else recipe(asked.suite, found, asked.home)
    lacking = "" if shipped else other_recipes(asked.suite, found.name)
    config = configure(found.value, shipped, asked.settings, lacking)
    privileges = declare(asked.declared) if asked.declared else found.value.declare(config)
    needs = found.value.needs(config)
    return Method(found.name, found.origin, config.model_dump(mode="json"), privileges, needs)


def _described(say: Callable[[dict[str, Any]], None], asked: Asked) -> Method:
    return describe(asked)
