"""Rows -> pages. The same rows give the same bytes: no clock, no random number."""

from __future__ import annotations

import csv
import io
import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from cpt_bench.files import write_text
from cpt_bench.leaderboard.site.collect import RANKED_BY, Board
from cpt_bench.leaderboard.site.entry_page import (
    COLUMNS,
    HEADLINE,
    entry_view,
    files_of,
    number,
    page_of,
)
from cpt_bench.metrics import SIGNED

TITLES = {
    "Learn": "Accuracy on each task just after learning it, mean over tasks, %",
    "AvgAcc": "Accuracy over all tasks at the end, %",
    "GapToJoint": "AvgAcc minus that of training on all tasks at once: negative = below the bound",
    "FM": "Change from the best earlier accuracy; negative = forgot",
    "GeneralDelta": "General benchmarks, after minus before; negative = capability lost",
    "FM_paper": "FM as the publication defines it: the maximum includes the last stage",
    "BWT": "Change since just after learning",
    "FWT": "What earlier tasks did for a task before it was trained",
    "Gain": "AvgAcc minus the base model's",
    "BaseAcc": "The base model's accuracy over all tasks, %",
}


def render(board: Board, out: Path, *, repository: str = "") -> None:
    """Write the pages to ``out``: index.html, compare.html, a page an entry, the data, the styles.

    Args:
        board: What to show.
        out: The folder; pages of an earlier build in it are replaced.
        repository: Where the entries' files are on the web; by default they are linked on disk.
    """
    shutil.rmtree(out / "entries", ignore_errors=True)
    env = environment()
    data = as_json(board)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    write_text(out / "leaderboard.json", text + "\n")
    # A page opened from disk may not fetch a file, but it may load a script.
    write_text(out / "data.js", f"window.CPTBENCH={script_safe(text)};\n")
    write_text(out / "leaderboard.csv", as_csv(board))
    for name in ("style.css", "board.js", "compare.js", "common.js"):
        write_text(out / name, _asset(name))
    shown = {"left_out": board.left_out, "headline": HEADLINE, "titles": TITLES}
    for name in ("index.html", "compare.html"):
        write_text(out / name, env.get_template(name).render(root="", **shown))
    template = env.get_template("entry.html")
    for row in board.rows:
        if row.verified is not None:
            page = out / page_of(row)
            files = files_of(row, page, repository)
            write_text(page, template.render(root="../", **entry_view(row, files)))


def environment() -> jinja2.Environment:
    """Templates in which every value is escaped."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("cpt_bench.leaderboard.site", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["number"] = number
    return env


def script_safe(text: str) -> str:
    """JSON that is safe inside a script, as a file or in a page."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def as_json(board: Board) -> dict[str, Any]:
    """``leaderboard.json``: all that the tables show, and the mean matrices."""
    rows = []
    for row in board.rows:
        rows.append(
            {
                "id": row.id,
                "suite": row.suite,
                "division": row.division,
                "name": row.name,
                "model": row.model,
                "lane": row.lane,
                "badge": row.badge,
                "date": row.date,
                "authors": list(row.authors),
                "seeds": row.seeds,
                "style": row.style,
                "privileges": list(row.privileges),
                "rank": list(row.rank) if row.rank else None,
                "metrics": {
                    key: [_short(m.mean), _short(m.half), _short(m.sd), m.n]
                    for key, m in row.metrics.items()
                },
                "tasks": list(row.tasks),
                "general": list(row.general),
                "matrix": [[_short(v, 1) for v in line] for line in row.matrix],
                "superseded": row.superseded,
                "bound": row.bound,
                "notes": row.notes,
                "link": row.link,
                "page": page_of(row) if row.verified is not None else "",
            }
        )
    return {
        "format": 1,
        "ranked_by": RANKED_BY,
        "columns": list(COLUMNS),
        "signed": sorted(SIGNED),
        "titles": TITLES,
        "rows": rows,
    }


def _short(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits) + 0.0


def as_csv(board: Board) -> str:
    """The table for a spreadsheet; cells that it would take for a formula are quoted with '."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    facts = ("suite", "division", "name", "model", "lane", "badge", "date", "seeds")
    ends = [f"{key}{what}" for key in COLUMNS for what in ("", " ±95%")]
    writer.writerow([*facts, *ends])
    for row in board.rows:
        cells = [_plain(str(getattr(row, fact))) for fact in facts]
        for key in COLUMNS:
            mean = row.metrics.get(key)
            cells += ["", ""] if mean is None else [f"{mean.mean:.3f}", _half(mean.half)]
        writer.writerow(cells)
    return out.getvalue()


def _half(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    return f"'{text}" if text[:1] in "=+-@\t" else text


def _asset(name: str) -> str:
    place = resources.files("cpt_bench.leaderboard.site") / "assets" / name
    return place.read_text(encoding="utf-8")
