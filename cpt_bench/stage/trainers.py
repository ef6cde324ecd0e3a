"""From a trainer's spec to its class."""

from __future__ import annotations

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import Resolved, resolve
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
    if not (isinstance(found.value, type) and issubclass(found.value, Trainer)):
        raise CptBenchError(f"{spec} is not a Trainer", todo="Give a subclass of it")
    return found
