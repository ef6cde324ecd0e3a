"""``cptbench nano``: how the nano suite's base model was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The nano suite's own tools.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """The nano suite's own tools."""


@app.command("build-base")
def build_base(
    out: Annotated[Path, typer.Option(help="Where to put each stage's weights and the log.")],
    stages: Annotated[Path | None, typer.Option(help="Another curriculum (YAML).")] = None,
    start: Annotated[Path | None, typer.Option(help="Go on from these weights.")] = None,
    only: Annotated[
        str | None, typer.Option(help="Only these stages, by name, with commas.")
    ] = None,
) -> None:
    """Train nano's base model from nothing (about an hour on two cores)."""
    from cpt_bench.environment import require_training

    require_training()
    from cpt_bench.tasks.nano.base.train import PLAN, build

    build(out, stages or PLAN, start, only.split(",") if only else None)
