"""``cptbench report``: the page people open first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt_bench.errors import CptBenchError


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or folders that hold run folders.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file [report.html in the first folder].")
    ] = None,
) -> None:
    """Write one self-contained HTML file about a run, or several runs of one suite."""
    from cpt_bench.report import write_report

    found = [folder for given in runs for folder in _runs_in(given)]
    target = write_report(found, out or runs[0] / "report.html")
    print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")


def _runs_in(given: Path) -> list[Path]:
    if (given / "run.json").is_file():
        return [given]
    inside = sorted(file.parent for file in given.glob("*/run.json"))
    if not inside:
        raise CptBenchError("neither a run folder nor a folder of runs", where=given)
    return inside
