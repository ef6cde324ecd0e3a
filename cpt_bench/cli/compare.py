"""``cptbench compare``: methods beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cpt_bench.report.grids import Grid


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders, or folders of them; seeds of a method are pooled."),
    ],
    against: Annotated[
        str | None, typer.Option(help="Compare with this method [the highest AvgAcc].")
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Everything, as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="The tables as a page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The tables in Markdown.")] = None,
    latex: Annotated[Path | None, typer.Option(help="The tables in LaTeX (booktabs).")] = None,
) -> None:
    """Compare methods on the same samples: numbers, intervals, differences, ties.

    Each format goes to a file, or with '-' to standard output.
    """
    from cpt_bench.report import comparison_page
    from cpt_bench.report.grids import grids
    from cpt_bench.report.grids import latex as as_latex
    from cpt_bench.report.grids import markdown as as_markdown
    from cpt_bench.results.compare import compare as compared
    from cpt_bench.results.load import folders_of, load

    found = compared(load(folders_of(runs)))
    tables = grids(found, against)
    if json_:
        import json

        _give(json_, json.dumps(found, indent=2, ensure_ascii=True, allow_nan=False) + "\n")
    if html:
        _give(html, comparison_page(found, tables))
    if markdown:
        _give(markdown, as_markdown(tables))
    if latex:
        _give(latex, as_latex(tables))
    if not (json_ or html or markdown or latex):
        _print(tables)


def _give(where: Path, text: str) -> None:
    from cpt_bench.files import write_text

    if str(where) == "-":
        print(text, end="")
    else:
        write_text(where, text)
        typer.echo(str(where), err=True)


def _print(tables: list[Grid]) -> None:
    import re

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for grid in tables:
        table = Table(title=Text(grid.title), title_justify="left", box=None, pad_edge=False)
        for i, header in enumerate(grid.header):
            table.add_column(Text(header), style="bold" if i == 0 else "", overflow="fold")
        for row in grid.rows:
            # A line for each interval: twenty columns do not fit beside each other.
            stacked = (re.sub(r" (?=[\[{])|(?<=[\]}]) ", "\n", c) for c in row[1:])
            table.add_row(Text(row[0]), *(Text(cell) for cell in stacked))
        console.print(table)
        console.print(Text(grid.note, style="dim"))
        console.print()
