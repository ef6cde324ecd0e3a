"""``cptbench trainer``: write one, prove one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Write a trainer, prove a trainer.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Write a trainer, prove a trainer."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The package's name: my-method.")],
    parent: Annotated[Path, typer.Option("--in", help="Where to put it.")] = Path(),
) -> None:
    """Make an installable package with one trainer, its recipe and its test."""
    from cpt_bench.scaffold import scaffold

    folder = scaffold(name, parent)
    print(f"{folder}\n\nNext:\n  pip install -e {folder}\n  cptbench trainer check {name}/{name}")


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of stage.json."""
    import json

    from cpt_bench.stage.document import schema as of_stage

    print(json.dumps(of_stage(), indent=2))


@app.command("check")
def check(
    spec: Annotated[str, typer.Argument(help="As for cptbench run --trainer.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")
    ] = None,
    privilege: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What a cmd: trainer uses beyond its task."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Run a trainer on two short stages and say whether it keeps the contract (a minute)."""
    import json
    import sys
    import tempfile

    from cpt_bench.cli.score import need_training_extra

    need_training_extra()
    from cpt_bench.plugins import default
    from cpt_bench.suite import open_suite

    named = default("suites", "run")
    suite = open_suite(named)
    from cpt_bench.run.check import check as try_it
    from cpt_bench.run.plan import Plan
    from cpt_bench.stage.method import Asked, find_method

    plan = Plan(
        suite_spec=named,
        suite=suite,
        method=find_method(Asked(spec, suite.name, tuple(set_ or ()), tuple(privilege or ()))),
        seed=0,
        limit=None,
        threads=1,
        overlap=False,
        keep="all",
        base=suite.base_path(),
    )

    def tell(event: dict[str, Any]) -> None:
        if event["kind"] == "trained" and not json_:
            print(f"  stage {event['stage']} ({event['task']})", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        findings = try_it(plan, Path(folder), tell)
    if json_:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    for finding in [] if json_ else findings:
        mark = {True: "ok  ", False: "FAIL", None: "  ? "}[finding.ok]
        print(f"{mark}  {finding.what}: {finding.detail}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)
