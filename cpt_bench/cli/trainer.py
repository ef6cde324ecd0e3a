"""``cptbench trainer``: start a new trainer, check one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import cpt_bench
from cpt_bench.cli.tables import print_json

app = typer.Typer(help="Start a new trainer, or check one.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Start a new trainer, or check one."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The package's name: my-method.")],
    parent: Annotated[
        Path, typer.Option("--in", help="The folder to make it in [default: the current one].")
    ] = Path(),
) -> None:
    """Make an installable package with one trainer, its recipe and its test."""
    from cpt_bench.scaffold import scaffold

    folder = scaffold(name, parent)
    print(f"{folder}\n\nNext:\n  pip install -e {folder}\n  cptbench trainer check {name}/{name}")


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of stage.json."""
    from cpt_bench.stage.document import schema as of_stage

    print(json.dumps(of_stage(), indent=2))


@app.command("check")
def check(
    spec: Annotated[str, typer.Argument(help="The trainer, as for cptbench run --trainer.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer (repeatable)."),
    ] = None,
    privilege: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="What a cmd: trainer uses beyond its task (repeatable)."
        ),
    ] = None,
    stage_timeout: Annotated[
        float | None,
        typer.Option(min=0, help="End a stage's training after this many seconds [default: 120]."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="The suite whose first two tasks are used [default: the suite that ships]."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Start from this model, a folder or org/name on the hub, instead."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Run a trainer on two short stages and check that it keeps the contract (a minute)."""

    def show(event: dict[str, Any]) -> None:
        if event["kind"] == "trained" and not json_:
            print(f"  stage {event['stage']} ({event['task']})", file=sys.stderr, flush=True)

    findings = cpt_bench.check_trainer(
        spec,
        settings=set_ or (),
        privileges=privilege or (),
        stage_timeout=stage_timeout,
        suite=suite,
        base=base,
        progress=show,
    )
    if json_:
        print_json([finding._asdict() for finding in findings])
    for finding in [] if json_ else findings:
        mark = {True: "ok  ", False: "FAIL", None: "  ? "}[finding.ok]
        print(f"{mark}  {finding.what}: {finding.detail}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)
