"""``cptbench nano``: make the nano suite's base model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Tools of the nano suite.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Tools of the nano suite."""


@app.command("build-base")
def build_base(
    out: Annotated[Path, typer.Option(help="The folder for each stage's weights and the log.")],
    stages: Annotated[
        Path | None, typer.Option(help="The curriculum, as YAML [default: the one that ships].")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Start from these weights [default: random ones].")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Only these stages, by name, with commas.")
    ] = None,
) -> None:
    """Train nano's base model from random weights (about an hour on two cores)."""
    from cpt_bench.environment import require_training

    require_training()
    from cpt_bench.tasks.nano.base.train import PLAN, build

    build(out, stages or PLAN, start, only.split(",") if only else None)
