"""The matrix and the metrics as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cpt_bench.metrics import SIGNED

HEADLINE = (
    *("Learn", "AvgAcc", "FM", "BWT", "FWT", "Gain", "GeneralDelta"),
    *("Lost", "Lost_format", "Lost_mode", "Lost_content", "KL_new", "KL_general"),
)


def matrix_table(matrix: dict[str, Any], width: int = 80) -> Table:
    """R with a row a stage; general benchmarks to the right. Cells are shaded by their value."""
    general = matrix.get("general", {"benchmarks": [], "accuracy": []})
    title = "accuracy after each stage, %"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("after", no_wrap=True)
    for name in [*matrix["tasks"], *general["benchmarks"]]:
        style = "dim" if name in general["benchmarks"] else "bold"
        # Ten columns fit a terminal of 80 when their names are cut.
        header = Text(name if width >= 110 else name[:5], style=style)
        table.add_column(header, justify="right", no_wrap=True)
    for t, row in enumerate(matrix["accuracy"]):
        label = "base" if t == 0 else f"{t} {matrix['tasks'][t - 1]}"
        extra = general["accuracy"][t] if general["accuracy"] else []
        cells = [_cell(v, learned=t == j + 1) for j, v in enumerate(row)]
        table.add_row(label, *cells, *[_cell(v) for v in extra])
    return table


def _cell(value: float | None, learned: bool = False) -> Text:
    if value is None:
        return Text("·", style="dim")
    shade = min(max(value, 0), 100) / 100
    color = f"rgb({int(225 - 120 * shade)},{int(120 + 90 * shade)},{int(105 + 25 * shade)})"
    return Text(f"{value:.1f}", style=f"bold underline {color}" if learned else color)


def metrics_table(metrics: dict[str, Any], everything: bool = False) -> Table:
    """The headline metrics, or all of them, each with its interval, n and formula."""
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", style="bold")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("n", justify="right")
    table.add_column("formula", style="dim", overflow="fold")
    others = [k for k in metrics if k not in HEADLINE] if everything else []
    for key in [*HEADLINE, *others]:
        if key in metrics:
            table.add_row(*(Text(cell) for cell in (key, *_values(key, metrics[key]))))
    return table


def _values(key: str, passport: dict[str, Any]) -> tuple[str, str, str, str]:
    if passport["value"] is None:
        why = passport["missing"]
        more = f" and {len(why) - 1} more" if len(why) > 1 else ""
        return "–", "", "", f"needs {why[0]}{more}"
    interval = passport["interval"]
    sign = "+" if key in SIGNED else ""
    digits = 3 if "KL(" in passport["formula"] else 1  # nats, not percentage points
    ends = (interval["low"], interval["high"]) if interval else ()
    between = " … ".join(f"{end:{sign}.{digits}f}" for end in ends)
    n = f"{passport['n']}" if passport["n"] is not None else ""
    return f"{passport['value']:{sign}.{max(2, digits)}f}", between, n, passport["formula"]


def print_scores(matrix: dict[str, Any], metrics: dict[str, Any], everything: bool = False) -> None:
    """The matrix, then the headline metrics (or all)."""
    console = Console(highlight=False)
    console.print(matrix_table(matrix, console.width))
    console.print()
    console.print(metrics_table(metrics, everything))
    more = len(metrics.keys() - set(HEADLINE))
    if more and not everything:
        console.print(f"\n{more} more, other conventions among them: --all", style="dim")
