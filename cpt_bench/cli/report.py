"""``cptbench report``: one HTML file about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of them.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The file [default: report.html in the first folder]."),
    ] = None,
) -> None:
    """Write one self-contained HTML file about a run, or several runs of one suite."""
    from cpt_bench.report import write_report
    from cpt_bench.results.load import folders_of

    target = write_report(folders_of(runs), out or runs[0] / "report.html")
    print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")
