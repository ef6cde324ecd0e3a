"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt_bench.errors import CptBenchError

EngineName = Annotated[
    str, typer.Option(help="What answers: transformers, vllm, pkg/name or ./file.py:Class.")
]
EngineSettings = Annotated[
    list[str] | None,
    typer.Option("--engine-set", metavar="KEY=VALUE", help="A setting of it (repeatable)."),
]


def a_folder(out: Path) -> Path:
    """``out``, which is a folder or not there yet."""
    if out.exists() and not out.is_dir():
        raise CptBenchError("is no folder", where=out, todo="Give another --out")
    return out
