"""``cptbench compare``: methods on the same samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import cpt_bench


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, or folders of run folders; seeds of a method are pooled."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(help="The method to compare with [default: that of the highest AvgAcc]."),
    ] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", help="Write everything as JSON to this file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the tables as an HTML page to this file.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the tables in Markdown to this file.")
    ] = None,
    latex: Annotated[
        Path | None, typer.Option(help="Write the tables in LaTeX (booktabs) to this file.")
    ] = None,
) -> None:
    """Compare methods on the same samples: numbers, intervals, differences, ties.

    In place of a file, '-' is standard output.
    """
    from cpt_bench.cli.tables import print_comparison

    found = cpt_bench.compare(runs, against)
    if json_:
        data = json.dumps(found.data, indent=2, ensure_ascii=True, allow_nan=False)
        _write(json_, data + "\n")
    if html:
        _write(html, found.page())
    if markdown:
        _write(markdown, found.markdown())
    if latex:
        _write(latex, found.latex())
    if not (json_ or html or markdown or latex):
        print_comparison(found)


def _write(where: Path, text: str) -> None:
    from cpt_bench.files import write_text

    if str(where) == "-":
        print(text, end="")
    else:
        write_text(where, text)
        typer.echo(str(where), err=True)
