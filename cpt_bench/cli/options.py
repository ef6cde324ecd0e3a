"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cpt_bench.errors import CptBenchError


class Default:
    """A built-in plug-in as the default of an option; see :func:`cpt_bench.plugins.default`.

    It is looked up when a command runs, or its help is shown: ``cptbench --help`` reads no index.
    """

    def __init__(self, kind: str, command: str) -> None:
        self.kind, self.command = kind, command

    def __call__(self) -> str:
        from cpt_bench.plugins import default

        return default(self.kind, self.command)

    __str__ = __call__


TRIED: Any = Default("suites", "run")
PLANNED: Any = Default("suites", "plan")
FETCHED: Any = Default("suites", "data")
PLANNED_TRAINER: Any = Default("trainers", "plan")

EngineName = Annotated[
    str,
    typer.Option(help="What runs the model: transformers, vllm, pkg/name or ./file.py:Class."),
]
EngineSettings = Annotated[
    list[str] | None,
    typer.Option("--engine-set", metavar="KEY=VALUE", help="A setting of the engine (repeatable)."),
]
TierName = Annotated[
    str | None, typer.Option(help="The suite's size [default: the suite's first].")
]
ProtocolName = Annotated[
    str | None,
    typer.Option(help="Evaluation protocol, NAME or NAME.STYLE [default: the suite's]."),
]


def listed(text: str | None) -> tuple[str, ...] | None:
    """The parts of an option that takes several values with commas; None where it is absent."""
    if text is None:
        return None
    return tuple(part for part in map(str.strip, text.split(",")) if part)


def a_folder(out: Path) -> Path:
    """``out``, which is a directory or does not exist yet.

    Raises:
        CptBenchError: It is a file.
    """
    if out.exists() and not out.is_dir():
        raise CptBenchError("is not a directory", where=out, todo="Give another --out")
    return out
