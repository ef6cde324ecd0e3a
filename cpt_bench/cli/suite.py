"""``cptbench suite``: start a new suite, check one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cpt_bench.cli.tables import print_json

app = typer.Typer(help="Start a new suite, or check one.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Start a new suite, or check one."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The suite's name: my-suite.")],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A table, a folder of pictures, a folder of several of these (a task each), or "
            "a data set of the hub (owner/name).",
        ),
    ] = None,
    parent: Annotated[
        Path, typer.Option("--in", help="The folder to make it in [default: the current one].")
    ] = Path(),
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the data into the suite's folder.")
    ] = False,
    copies: Annotated[
        Path | None,
        typer.Option(help="Take data sets of the hub from this folder (<owner>/<name>)."),
    ] = None,
    package: Annotated[
        bool, typer.Option("--package", help="Make a package that can be installed.")
    ] = False,
) -> None:
    """Write suite.yaml and a card for each data set, filled in as far as the data allow."""
    from cpt_bench.advice import suites
    from cpt_bench.scaffold.suite import new_suite

    folder, remarks = new_suite(name, parent, from_, package=package, copy=copy, copies=copies)
    for finding in suites.check(str(folder), write=True):
        if finding.ok is not True:
            remarks.append(f"{finding.place}: {finding.what}. {finding.cure}")
    print(folder)
    for remark in remarks:
        print(f"  ?   {remark}")
    spec = f"{name}/{name}" if package else str(folder)
    install = f"\n  pip install -e {folder.parent.parent}" if package else ""
    print(f"\nNext:{install}\n  cptbench show {spec}\n  cptbench suite check {folder} --pin")


@app.command("check")
def check(
    suite: Annotated[str, typer.Argument(help="A suite's name, or its folder.")],
    base: Annotated[
        Path | None,
        typer.Option(help="Also ask this model some questions, and compare lengths with its room."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="With --base: the questions of each task to ask.")
    ] = 32,
    pin: Annotated[
        bool,
        typer.Option("--pin", help="Write sizes and hashes of sound splits into the cards."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check that a suite is sound: its data, gold, graders, prompts and splits.

    Exit status 1 when something is wrong; a line with ? is for you to judge.
    """
    from cpt_bench.advice import suites

    def tell(line: str) -> None:
        if not json_:
            print(f"  {line}", file=sys.stderr, flush=True)

    findings = suites.check(suite, write=pin, tell=tell)
    if base is not None and not any(finding.ok is False for finding in findings):
        from cpt_bench.advice.base_model import check_with

        tell(f"asking {base.name}")
        findings += check_with(suite, base, limit=limit)
    if json_:
        print_json([finding._asdict() for finding in findings])
    for finding in [] if json_ else findings:
        mark = {True: "ok  ", False: "FAIL", None: "  ? "}[finding.ok]
        cure = f". {finding.cure}" if finding.cure else ""
        print(f"{mark}  {finding.place}: {finding.what}{cure}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)
