"""Tables of a comparison as plain text, rendered to Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.metrics import PARTS, SIGNED
from cpt_bench.report.text import visible

COLUMNS = ("Learn", "AvgAcc", "FM", "BWT", "Gain", "GeneralDelta")
"""The columns of a table; the JSON has all metrics."""


class Grid(NamedTuple):
    """A table of plain text.

    Attributes:
        title: The text above the table.
        header: Column names.
        rows: Cells; the first cell of a row is its name.
        note: The text below the table.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def grids(comparison: dict[str, Any], against: str | None = None) -> list[Grid]:
    """The tables of a comparison: methods, differences from one of them, McNemar per task.

    Args:
        comparison: The result of :func:`cpt_bench.results.compare.compare`.
        against: The method to compare with; by default the one with the highest AvgAcc.

    Raises:
        CptBenchError: No method is called ``against``.
    """
    methods = sorted(comparison["methods"], key=_rank)
    names = [m["name"] for m in methods]
    if against is not None and against not in names:
        raise CptBenchError(f"no method is called {against!r}", todo=did_you_mean(against, names))
    reference = against or names[0]
    out = [_methods(methods, comparison, reference)]
    pairs = _against(comparison, names, reference)
    if pairs:
        out += [_differences(pairs, reference), _tasks(pairs, reference)]
    if any(m["numbers"]["TLG"]["value"] is not None for m in methods):
        out.append(_decomposition(methods))
    if comparison["to_joint"]:
        out.append(_joint(comparison["to_joint"]))
    if comparison["over_orders"]:
        out.append(_orders(comparison["over_orders"]))
    if comparison["missing"]:
        rows = [(name(run), cell) for run, cells in comparison["missing"].items() for cell in cells]
        out.append(
            Grid(
                "Missing cells",
                ("run", "cell"),
                rows,
                "A metric that needs one has no value.",
            )
        )
    return out


def name(text: str) -> str:
    """A name on one line, without invisible characters."""
    return visible(text, 100, lines=False)


def number(value: float | None, signed: bool = False, digits: int = 1) -> str:
    """A number as text, with a typographic minus sign."""
    if value is None:
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def between(interval: dict[str, Any] | None, signed: bool = False, digits: int = 1) -> str:
    if interval is None:
        return ""
    ends = (number(interval[end], signed, digits) for end in ("low", "high"))
    return " … ".join(ends)


def p_value(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _rank(method: dict[str, Any]) -> tuple[bool, float]:
    value = method["numbers"]["AvgAcc"]["value"]
    return value is None, -(value or 0.0)


def _against(
    comparison: dict[str, Any], names: Sequence[str], reference: str
) -> dict[str, dict[str, Any]]:
    """Map each method to its differences: the method's number minus the reference's."""
    out = {}
    for pair in comparison["pairs"]:
        if pair["second"] == reference:
            out[pair["first"]] = pair
        elif pair["first"] == reference:
            out[pair["second"]] = turned(pair)
    return {n: out[n] for n in names if n in out}


def turned(pair: dict[str, Any]) -> dict[str, Any]:
    """The same pair with its sides exchanged."""

    def negative(interval: dict[str, Any] | None) -> dict[str, Any] | None:
        return interval and {**interval, "low": -interval["high"], "high": -interval["low"]}

    opposite = {"higher": "lower", "lower": "higher"}
    differences = {
        key: {
            **d,
            "value": None if d["value"] is None else -d["value"],
            "over_samples": negative(d["over_samples"]),
            "over_seeds": negative(d["over_seeds"]),
            "verdict": opposite.get(d["verdict"], d["verdict"]),
        }
        for key, d in pair["differences"].items()
    }
    tasks = {
        task: {**t, "wins": t["losses"], "losses": t["wins"]} for task, t in pair["tasks"].items()
    }
    return {"first": pair["second"], "second": pair["first"], "differences": differences,
            "tasks": tasks}  # fmt: skip


def _cell(found: dict[str, Any] | None, signed: bool, digits: int = 1) -> str:
    if found is None or found["value"] is None:
        return "–"
    seeds = found["over_seeds"]
    spread = f" {{{between(seeds, signed, digits)}}}" if seeds else ""
    shown = number(found["value"], signed, digits)
    return f"{shown} [{between(found['over_samples'], signed, digits)}]{spread}"


def _methods(methods: list[dict[str, Any]], comparison: dict[str, Any], reference: str) -> Grid:
    rows = []
    for m in methods:
        cells = [_cell(m["numbers"][key], key in SIGNED) for key in COLUMNS]
        rows.append((name(m["name"]), _seeds(m["seeds"]), *cells))
    limit = comparison["limit"]
    size = f" (limited to {limit} samples a split)" if limit else ""
    title = f"{comparison['suite']['name']} {comparison['suite']['version']}{size}"
    note = (
        "Read Learn and FM together: a method that learns nothing forgets nothing. [95 % interval "
        "over test samples, paired bootstrap] {95 % interval over seeds, t}, which needs two seeds "
        "or more."
    )
    if len(comparison["orders"]) > 1:
        named = "; ".join(f"{k}: {', '.join(v)}" for k, v in comparison["orders"].items())
        note += f" Orders: {named}."
    if comparison["versions_differ"]:
        note += f" Not the same in all runs: {', '.join(comparison['versions_differ'])}."
    return Grid(title, ("method", "seeds", *COLUMNS), rows, note)


def _seeds(seeds: list[Any]) -> str:
    return f"{len(seeds)} ({', '.join(str(s) for s in seeds)})"


def _differences(pairs: dict[str, dict[str, Any]], reference: str) -> Grid:
    rows = [
        (name(who), *(_verdict(pair["differences"][key]) for key in COLUMNS))
        for who, pair in pairs.items()
    ]
    note = (
        "Method minus reference on the same samples. 'tie': the interval over samples or that over "
        "seeds contains 0. '(one seed)': only one seed was run; another one may reverse it."
    )
    title = f"Differences from {name(reference)}"
    return Grid(title, ("method", *COLUMNS), rows, note)


def _verdict(d: dict[str, Any]) -> str:
    if d["value"] is None:
        return "–"
    verdict = d["verdict"]
    if verdict != "tie" and "seeds" not in d["over"]:
        verdict += " (one seed)"
    seeds = f" {{{between(d['over_seeds'], True)}}}" if d["over_seeds"] else ""
    return f"{number(d['value'], True)} [{between(d['over_samples'], True)}]{seeds} {verdict}"


def _tasks(pairs: dict[str, dict[str, Any]], reference: str) -> Grid:
    tasks = list(next(iter(pairs.values()))["tasks"])
    rows = []
    for who, pair in pairs.items():
        cells = []
        for task in tasks:
            t = pair["tasks"][task]
            split = "–" if t["wins"] is None else f"{t['wins']}:{t['losses']}"
            cells.append(f"{split}, p {p_value(t['p_holm'])}".replace("p <", "p<"))
        rows.append((name(who), *cells))
    note = (
        "How many samples are better : worse at the end, and p of the exact McNemar test (with "
        "several seeds, of the exact sign test on each sample's mean over seeds), adjusted by Holm "
        "for the number of tasks."
    )
    title = f"Each task at the end, against {name(reference)}"
    return Grid(title, ("method", *tasks), rows, note)


def _joint(gaps: list[dict[str, Any]]) -> Grid:
    rows = [
        (name(g["method"]), name(g["joint"]), _verdict(g), _cell(g["CTM"], False, 2)) for g in gaps
    ]
    note = (
        "GapToJoint: AvgAcc minus the AvgAcc of training on all tasks at once. CTM: AvgAcc divided "
        "by it; 1 means as accurate as joint training."
    )
    return Grid("GapToJoint and CTM", ("method", "joint", "GapToJoint", "CTM"), rows, note)


def _decomposition(methods: list[dict[str, Any]]) -> Grid:
    rows = [
        (name(m["name"]), *(_cell(m["numbers"][key], key in SIGNED) for key in (*PARTS, "AvgAcc")))
        for m in methods
    ]
    note = (
        "The four parts of a row add up to its AvgAcc: the base model's accuracy (BaseAcc), what "
        "earlier tasks did for a task before its own stage (FWT_T), what its own stage added "
        "(TLG), and what later stages changed (BWT_T)."
    )
    return Grid("From the base to the end", ("method", *PARTS, "AvgAcc"), rows, note)


def _orders(over: dict[str, Any]) -> Grid:
    rows = []
    for kind, found in over.items():
        cells = []
        for key in COLUMNS:
            f = found.get(key)
            shown = "–" if f is None else number(f["value"], key in SIGNED)
            bounds = f and between(f["over_orders"], key in SIGNED)
            cells.append(f"{shown} [{bounds}]" if bounds else shown)
        count = len(next(iter(found.values()))["by_order"]) if found else 0
        rows.append((name(kind), str(count), *cells))
    note = "Mean over orders (each order's mean over its seeds) [95 % interval over orders, t]."
    return Grid("Over task orders", ("method", "orders", *COLUMNS), rows, note)


# ---------------------------------------------------------------------------------------- formats


def markdown(tables: Sequence[Grid]) -> str:
    """GitHub-flavoured Markdown."""

    def escape(text: str) -> str:
        return html.escape(re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text), quote=False)

    parts = []
    for grid in tables:
        lines = [f"### {escape(grid.title)}", ""]
        lines.append("| " + " | ".join(escape(h) for h in grid.header) + " |")
        lines.append("|---" * len(grid.header) + "|")
        lines += ["| " + " | ".join(escape(c) for c in row) + " |" for row in grid.rows]
        parts.append("\n".join([*lines, "", escape(grid.note), ""] if grid.note else [*lines, ""]))
    return "\n".join(parts)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--",
    "…": r"\ldots{}", "−": "$-$",
}  # fmt: skip


def latex(tables: Sequence[Grid]) -> str:
    """LaTeX tables for the package booktabs."""

    def escape(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in text)

    parts = []
    for grid in tables:
        columns = "l" + "r" * (len(grid.header) - 1)
        rows = [" & ".join(escape(c) for c in row) + r" \\" for row in grid.rows]
        parts.append("\n".join([
            r"\begin{table}", r"\centering",
            rf"\caption{{{escape(grid.title)}. {escape(grid.note)}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
            " & ".join(escape(h) for h in grid.header) + r" \\", r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}", r"\end{table}", "",
        ]))  # fmt: skip
    return "% needs \\usepackage{booktabs}\n" + "\n".join(parts)


def _lines(cell: str) -> str:
    """A number with its intervals and verdict below each other as HTML; other text unchanged."""
    parts = re.match(r"([+−]?\d[\d.]* )(\[[^\]]*\])\s*(\{[^}]*\})?\s*(.*)", cell, re.S)
    if parts is None:
        return f"<bdi>{html.escape(cell)}</bdi>"
    value, samples, seeds, verdict = (html.escape((p or "").strip()) for p in parts.groups())
    lines = "".join(f"<small>{line}</small>" for line in (samples, seeds) if line)
    return f"{value}{lines}" + (f"<em>{verdict}</em>" if verdict else "")


def html_tables(tables: Sequence[Grid]) -> str:
    """A fragment of HTML: one table each."""
    parts = []
    for grid in tables:
        head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in grid.header)
        rows = []
        for row in grid.rows:
            first = f'<th scope="row"><bdi>{html.escape(row[0])}</bdi></th>'
            rest = "".join(f"<td>{_lines(c)}</td>" for c in row[1:])
            rows.append(f"<tr>{first}{rest}</tr>")
        parts.append(
            f'<figure class="grid"><figcaption>{html.escape(grid.title)}</figcaption>'
            f'<div class="scroll" tabindex="0" role="region" '
            f'aria-label="{html.escape(grid.title)}"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
            f'<p class="note">{html.escape(grid.note)}</p></figure>'
        )
    return "\n".join(parts)
