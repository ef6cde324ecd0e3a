"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

EngineName = Annotated[
    str, typer.Option(help="What answers: transformers, vllm, pkg/name or ./file.py:Class.")
]
EngineSettings = Annotated[
    list[str] | None,
    typer.Option("--engine-set", metavar="KEY=VALUE", help="A setting of it (repeatable)."),
]
