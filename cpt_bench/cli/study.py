"""``cptbench study``: store runs, rebuild the study."""

from __future__ import annotations

import typer

app = typer.Typer(help="Stored runs and what they say of published claims.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Stored runs and what they say of published claims."""
