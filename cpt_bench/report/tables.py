"""The matrix, the metrics and a comparison as tables, for terminals and notebooks."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cpt_bench.metrics import SIGNED
from cpt_bench.report.grids import Grid

HEADLINE = (
    *("Learn", "AvgAcc", "FM", "BWT", "FWT", "Gain", "GeneralDelta"),
    *("Lost", "Lost_format", "Lost_mode", "Lost_content", "KL_new", "KL_general"),
)
"""The metrics that are shown first."""

MATRIX_TITLE = "accuracy after each stage, %"

METRICS_HEADER = ("metric", "value", "95 % interval", "n", "formula")


def matrix_table(matrix: dict[str, Any], width: int = 80, running: bool = False) -> Table:
    """R with one row per stage; general benchmarks to the right. Cells are coloured by value.

    Args:
        matrix: As in ``matrix.json``.
        width: Columns of the terminal; on narrow ones names are shortened.
        running: Show all rows that a run will have, where else one model's row stands alone.
    """
    general = _general(matrix)
    table = Table(title=MATRIX_TITLE, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("after", no_wrap=True)
    for name in [*matrix["tasks"], *general["benchmarks"]]:
        style = "dim" if name in general["benchmarks"] else "bold"
        # Ten columns fit into 80 characters if their names are shortened.
        header = Text(name if width >= 110 else name[:5], style=style)
        table.add_column(header, justify="right", no_wrap=True)
    for t, (label, cells, extra) in enumerate(_rows(matrix)):
        if t > 0 and is_one_row(matrix) and not running:
            break
        learned = [_cell(value, learned=t == j + 1) for j, value in enumerate(cells)]
        table.add_row(label, *learned, *map(_cell, extra))
    return table


def is_one_row(matrix: dict[str, Any]) -> bool:
    """Whether there is nothing but row 0: a model that was evaluated, and not trained."""
    first, *later = [*_rows(matrix)]
    known = [v for _, cells, extra in later for v in (*cells, *extra) if v is not None]
    return not known and any(v is not None for v in (*first[1], *first[2]))


def _general(matrix: dict[str, Any]) -> dict[str, Any]:
    return dict(matrix.get("general") or {"benchmarks": [], "accuracy": []})


def _rows(matrix: dict[str, Any]) -> list[tuple[str, list[float | None], list[float | None]]]:
    """Each stage's name, its row of R and its row of general benchmarks."""
    general = _general(matrix)["accuracy"]
    return [
        (
            "base" if t == 0 else f"{t} {matrix['tasks'][t - 1]}",
            row,
            general[t] if general else [],
        )
        for t, row in enumerate(matrix["accuracy"])
    ]


def _shade(value: float) -> str:
    """A colour from red (0 %) to green (100 %)."""
    share = min(max(value, 0), 100) / 100
    return f"rgb({int(225 - 120 * share)},{int(120 + 90 * share)},{int(105 + 25 * share)})"


def _cell(value: float | None, learned: bool = False) -> Text:
    if value is None:
        return Text("·", style="dim")
    colour = _shade(value)
    return Text(f"{value:.1f}", style=f"bold underline {colour}" if learned else colour)


def metrics_table(metrics: dict[str, Any], everything: bool = False) -> Table:
    """The headline metrics, or all of them, each with its interval, n and formula."""
    table = Table(box=None, pad_edge=False)
    name, *numbers, formula = METRICS_HEADER
    table.add_column(name, style="bold")
    for header in numbers:
        table.add_column(header, justify="right")
    table.add_column(formula, style="dim", overflow="fold")
    for row in metrics_rows(metrics, everything):
        table.add_row(*map(Text, row))
    return table


def metrics_rows(metrics: dict[str, Any], everything: bool = False) -> list[tuple[str, ...]]:
    """Each metric's cells under :data:`METRICS_HEADER`."""
    others = [key for key in metrics if key not in HEADLINE] if everything else []
    return [(key, *_values(key, metrics[key])) for key in [*HEADLINE, *others] if key in metrics]


def left_out(metrics: dict[str, Any]) -> int:
    """How many metrics are not among the headline ones."""
    return len(metrics.keys() - set(HEADLINE))


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


def comparison_tables(grids: Sequence[Grid]) -> list[RenderableType]:
    """The tables of a comparison, each with the note below it."""
    out: list[RenderableType] = []
    for grid in grids:
        table = Table(title=Text(grid.title), title_justify="left", box=None, pad_edge=False)
        for i, header in enumerate(grid.header):
            table.add_column(Text(header), style="bold" if i == 0 else "", overflow="fold")
        for row in grid.rows:
            # A line for each interval: twenty columns do not fit side by side.
            stacked = (re.sub(r" (?=[\[{])|(?<=[\]}]) ", "\n", cell) for cell in row[1:])
            table.add_row(Text(row[0]), *map(Text, stacked))
        out += [table, Text(grid.note, style="dim"), Text()]
    return out


def as_text(shown: RenderableType) -> str:
    """What a terminal would show, without colours."""
    stream = io.StringIO()
    # In a notebook, rich would display by itself what is only to be returned here.
    Console(file=stream, color_system=None, force_terminal=False, force_jupyter=False).print(shown)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n")


# ---------------------------------------------------------------------------------------- notebooks

_RIGHT = "text-align:right"


def matrix_html(matrix: dict[str, Any]) -> str:
    """:func:`matrix_table` for a notebook."""
    names = [*matrix["tasks"], *_general(matrix)["benchmarks"]]
    rows = []
    for t, (label, cells, extra) in enumerate(_rows(matrix)):
        if t > 0 and is_one_row(matrix):
            break
        row = [_cell_html(value, learned=t == j + 1) for j, value in enumerate(cells)]
        rows.append((f"<th>{html.escape(label)}</th>", *row, *map(_cell_html, extra)))
    return _table_html(MATRIX_TITLE, ("after", *names), rows)


def _cell_html(value: float | None, learned: bool = False) -> str:
    if value is None:
        return f'<td style="{_RIGHT}">·</td>'
    # Black text on a light background, so that it is readable on a dark page as well.
    colour = _shade(value).replace("rgb(", "rgba(").replace(")", ",0.35)")
    number = f"<b><u>{value:.1f}</u></b>" if learned else f"{value:.1f}"
    return f'<td style="{_RIGHT};background:{colour}">{number}</td>'


def metrics_html(metrics: dict[str, Any]) -> str:
    """:func:`metrics_table` of the headline metrics, for a notebook."""
    rows = []
    for name, *numbers, formula in metrics_rows(metrics):
        cells = (f'<td style="{_RIGHT}">{html.escape(cell)}</td>' for cell in numbers)
        last = f'<td style="text-align:left">{html.escape(formula)}</td>'
        rows.append((f"<th>{html.escape(name)}</th>", *cells, last))
    return _table_html("", METRICS_HEADER, rows)


def _table_html(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
