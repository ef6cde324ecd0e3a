"""Printing numbers: tables for a person, JSON for a program."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpt_bench.report.result import Comparison, Result


def print_json(value: Any) -> None:
    """Print a value as JSON that is whole in whatever encoding the terminal has."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
    print(json.dumps(value, indent=2, ensure_ascii=not utf8))


def print_scores(matrix: dict[str, Any], metrics: dict[str, Any], everything: bool = False) -> None:
    """The matrix, then the headline metrics (or all)."""
    from rich.console import Console

    from cpt_bench.report.tables import is_one_row, left_out, matrix_table, metrics_table

    console = Console(highlight=False)
    console.print(matrix_table(matrix, console.width))
    if is_one_row(matrix):  # what is learned and forgotten takes a stage
        metrics = {key: found for key, found in metrics.items() if found["value"] is not None}
        everything = True
    console.print()
    console.print(metrics_table(metrics, everything))
    more = left_out(metrics)
    if more and not everything:
        console.print(f"\n{more} more, other conventions among them: --all", style="dim")


def print_result(result: Result, as_json: bool) -> None:
    """A run's numbers, and what this call spent on them."""
    found = result.as_json()
    if as_json:
        print_json(found)
        return
    print_scores(found["matrix"], found["metrics"])
    spent = _spent(found["costs"]) if "costs" in found else ""
    print(f"\n{spent}\n{result.folder}/metrics.json")


def _spent(costs: dict[str, Any]) -> str:
    if not costs["steps_done"]:
        return "nothing to do: the run was already finished"
    training = costs["train_seconds"] - costs["generation_seconds"]
    return (
        f"{costs['wall_seconds']:.0f} s: training {training:.0f} s, rollouts "
        f"{costs['generation_seconds']:.0f} s, evaluation {costs['evaluate_seconds']:.0f} s "
        "(during training, where the machine allows it)"
    )


def print_comparison(comparison: Comparison) -> None:
    """The tables of a comparison."""
    from rich.console import Console

    Console(highlight=False).print(comparison)
