"""From a trainer's spec to its class."""

from __future__ import annotations

from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import Resolved, resolve, value_of
from cpt_bench.stage import command
from cpt_bench.trainer import Trainer


def trainer_of(spec: str) -> Resolved:
    """The trainer class that ``spec`` names, also for a ``cmd:`` spec.

    Raises:
        CptBenchError: There is none of that name, or it is not a trainer.
    """
    if spec.startswith(command.PREFIX):
        return command.find(spec)
    found = resolve("trainers", spec)
    _checked(found.value, spec)
    return found


def class_of(spec: str) -> type[Trainer]:
    """The class alone, for processes that train: they may not read all of a suite's package.

    Raises:
        CptBenchError: As :func:`trainer_of`.
    """
    if spec.startswith(command.PREFIX):
        return _checked(command.find(spec).value, spec)
    return _checked(value_of("trainers", spec), spec)


def _checked(found: Any, spec: str) -> type[Trainer]:
    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise CptBenchError(f"{spec} is not a Trainer", todo="Give a subclass of it")
    return found
