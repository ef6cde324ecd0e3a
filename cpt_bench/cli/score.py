"""``cptbench score`` and ``cptbench metrics``: numbers from what is on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cpt_bench.cli.options import TRIED
from cpt_bench.cli.streams import utf8_output


def score(
    run: Annotated[Path, typer.Argument(help="A run folder, or a folder of predictions.")],
    suite: Annotated[str, typer.Option(help="For predictions: the benchmark.")] = TRIED,
    name: Annotated[str, typer.Option(help="For predictions: the method's name.")] = "predictions",
    out: Annotated[
        Path | None, typer.Option(help="For predictions: the run folder to make [runs/<name>].")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="For predictions: the task order, with commas.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="For predictions: only the first N were answered.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print metrics.json instead.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every convention, flips, kinds.")] = False,
) -> None:
    """Recompute a run's matrix and metrics from its predictions (no torch).

    A folder of replies that another harness collected (see cptbench export prompts) is graded into
    a run folder first.
    """
    utf8_output()
    from cpt_bench.cli.tables import print_scores
    from cpt_bench.results.scoring import write_scores

    if (run / "run.json").exists() or not run.is_dir():
        scores = write_scores(run)
    else:
        from cpt_bench.run.lanes import import_predictions
        from cpt_bench.suite import open_suite

        found = open_suite(suite)
        if order is not None:
            found = found.reordered(tuple(order.split(",")))
        target = out or Path("runs") / f"{found.name}-{name}"
        scores = import_predictions(run, target, found, suite, name, limit)
    if json_:
        print(json.dumps(scores.metrics, indent=2, ensure_ascii=False))
    else:
        print_scores(scores.matrix_json(), scores.metrics, all_)
        for cell in scores.missing():
            print(f"missing  {cell}")


def metrics(
    matrix: Annotated[Path, typer.Argument(help='{"tasks": [...], "accuracy": [[...], ...]}')],
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every convention.")] = False,
) -> None:
    """Compute every metric of any accuracy matrix; missing cells are named, never averaged over."""
    utf8_output()
    from cpt_bench.cli.tables import print_scores
    from cpt_bench.files import read_json
    from cpt_bench.metrics import evaluate, matrix_from_json, matrix_to_json, missing_cells

    read = matrix_from_json(read_json(matrix), where=matrix)
    values = evaluate(read)
    missing = list(missing_cells(read))
    if json_:
        print(json.dumps({"missing": missing, "metrics": values}, indent=2, ensure_ascii=False))
    else:
        print_scores(matrix_to_json(read), values, all_)
        for cell in missing:
            print(f"missing  {cell}")
