"""``cptbench study``: store runs, rebuild the study."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The study: stored runs, and the published claims they support or refute.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--study", help="The study's folder.")]
HERE = Path("docs/study")


@app.callback()
def main() -> None:
    """The study: stored runs, and the published claims they support or refute."""


@app.command("store")
def store(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders.")],
    study: Folder = HERE,
) -> None:
    """Pack finished runs into the study's results, one small file each, and verify them."""
    from cpt_bench.study.store import store as packed
    from cpt_bench.study.verify import Seen, verify

    seen: Seen = {}
    refuted = 0
    for run in runs:
        file = packed(run, study / "results")
        report = verify(file, seen=seen).report
        print(f"{report.verdict}: {file}  {file.stat().st_size / 1024:.0f} KiB", flush=True)
        for finding in report.errors:
            print(finding.line())
        refuted += bool(report.errors)
    if refuted:
        raise typer.Exit(1)


@app.command("measure")
def measure(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders.")],
    base: Annotated[
        Path | None,
        typer.Option(help="The checkpoint they started from [default: the suite's base model]."),
    ] = None,
) -> None:
    """Measure KL and kinds of forgetting where a run lacks them, from its checkpoints."""
    from cpt_bench.environment import require_training

    require_training()
    from cpt_bench.study.measure import measure as measured

    for run in runs:
        start = time.monotonic()
        steps = measured(run, base)
        print(f"{run}: {steps} steps, {time.monotonic() - start:.0f} s", flush=True)


@app.command("build")
def build(
    study: Folder = HERE,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit with status 1 where a file is out of date."
        ),
    ] = False,
) -> None:
    """Rebuild the verdicts, figures and page from the stored runs."""
    from cpt_bench.study.build import build as made
    from cpt_bench.study.build import stale
    from cpt_bench.study.opening import open_study

    start = time.monotonic()
    found = open_study(study)
    if check:
        lines = stale(found)
        for line in lines:
            print(line)
        if lines:
            raise typer.Exit(1)
        print(f"up to date: {len(found.claims)} verdicts from {found.runs} runs")
        return
    for path in made(found):
        print(path)
    for claim in found.claims:
        print(f"{claim.verdict}: {claim.id} ({claim.because})")
    print(f"{found.runs} runs, {time.monotonic() - start:.0f} s")
