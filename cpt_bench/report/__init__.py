"""Run folders -> one self-contained HTML file that opens from disk, without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt_bench.files import write_text
from cpt_bench.report.grids import Grid, grids, html_tables
from cpt_bench.results.load import load

HERE = Path(__file__).parent


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Report on one run, or on several of one suite.

    Raises:
        CptBenchError: A folder is not a run, or the runs are not of one suite version.
    """
    from cpt_bench.report.payload import payload
    from cpt_bench.results.compare import compare

    runs = load(folders)
    comparison = compare(runs)
    tables = html_tables(grids(comparison)) if len(comparison["methods"]) > 1 else ""
    data = payload(runs, comparison)
    write_text(out, page("report.html.j2", data, tables=tables))
    return out


def comparison_page(comparison: dict[str, Any], tables: Sequence[Grid]) -> str:
    """The tables of a comparison as an HTML page."""
    suite = comparison["suite"]
    return page("comparison.html.j2", {"suite": suite}, tables=html_tables(tables))


def page(template: str, data: dict[str, Any], **more: Any) -> str:
    """A template with its styles, scripts and data embedded."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )

    def inline(name: str) -> Markup:
        return Markup((HERE / name).read_text(encoding="utf-8"))

    made = {key: Markup(value) for key, value in more.items()}  # html_tables escapes
    return environment.get_template(template).render(
        data=data, json=Markup(embedded(data)), inline=inline, **made
    )


def embedded(data: Any) -> str:
    """JSON that is safe inside a script element, whatever texts it contains."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
