"""Rows -> pages. The same rows give the same bytes: no clock, no random number."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from cpt_bench.files import write_text
from cpt_bench.leaderboard.site.collect import RANKED_BY, Board, Row
from cpt_bench.leaderboard.stats import mean_of
from cpt_bench.metrics import SIGNED

COLUMNS = ("Learn", "AvgAcc", "FM", "GeneralDelta", "FM_paper", "BWT", "FWT", "Gain", "BaseAcc")
TITLES = {
    "Learn": "Accuracy on each task just after learning it, mean over tasks, %",
    "AvgAcc": "Accuracy over all tasks at the end, %",
    "FM": "Change from the best earlier accuracy; negative = forgot",
    "GeneralDelta": "General benchmarks, after minus before; negative = capability lost",
    "FM_paper": "FM as the publication defines it: the maximum includes the last stage",
    "BWT": "Change since just after learning",
    "FWT": "What earlier tasks did for a task before it was trained",
    "Gain": "AvgAcc minus the base model's",
    "BaseAcc": "The base model's accuracy over all tasks, %",
}


def render(board: Board, out: Path, *, repository: str = "", home: str = "") -> None:
    """Write the pages to ``out``: index.html, compare.html, a page an entry, the data, the styles.

    Args:
        board: What to show.
        out: The folder; pages of an earlier build in it are replaced.
        repository: Where the entries' files are on the web; by default they are linked on disk.
        home: The page of the site that these are part of, seen from ``out``; none by default.
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
    shown = {"left_out": board.left_out, "columns": COLUMNS, "titles": TITLES, "home": home}
    for name in ("index.html", "compare.html"):
        write_text(out / name, env.get_template(name).render(root="", **shown))
    template = env.get_template("entry.html")
    for row in board.rows:
        if row.verified is not None:
            page = out / page_of(row)
            files = _files(board, row, page, repository)
            write_text(page, template.render(root="../", home=home, **entry_view(row, files)))


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


def number(value: float | None, signed: bool = False, digits: int = 1) -> str:
    """``41.9``, ``−8.7``; a dash where there is none."""
    if value is None:
        return "–"
    shown = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(shown) == 0:
        shown = shown.lstrip("+-")
    return shown.replace("-", "−")


def page_of(row: Row) -> str:
    """The entry's page, relative to the site."""
    return "entries/" + re.sub(r"[^A-Za-z0-9._-]+", "--", row.id) + ".html"


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


# -------------------------------------------------------------------------------- entry pages


def _files(board: Board, row: Row, page: Path, repository: str) -> list[dict[str, Any]]:
    assert row.verified is not None
    folder, files = row.verified.folder, []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        path = file.relative_to(folder).as_posix()
        if repository:
            link = f"{repository.rstrip('/')}/{row.id}/{path}"
        else:
            link = Path(os.path.relpath(file, page.absolute().parent)).as_posix()
        files.append({"path": path, "bytes": file.stat().st_size, "link": link})
    return files


def entry_view(row: Row, files: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page of an entry shows."""
    done = row.verified
    assert done is not None and done.entry is not None
    entry, seeds = done.entry, done.seeds
    scored = {n: s.scores for n, s in seeds.items() if s.scores is not None}
    table = []
    for key, mean in row.metrics.items():
        passports = [s.metrics[key] for s in scored.values()]
        table.append(
            {
                "key": key,
                "mean": mean,
                "signed": key in SIGNED,
                "formula": passports[0]["formula"],
                "seeds": [
                    (p["value"], p["interval"] and (p["interval"]["low"], p["interval"]["high"]))
                    for p in passports
                ],
            }
        )
    order = {key: i for i, key in enumerate(COLUMNS)}
    table.sort(key=lambda line: order.get(line["key"], len(order)))
    return {
        "row": row,
        "entry": entry,
        "table": table,
        "numbers": sorted(scored),
        "matrix": _matrix_view(row),
        "per_seed": [(n, _seed_matrix(row, s)) for n, s in sorted(scored.items())],
        "general_delta": _benchmarks(scored),
        "report": done.report.as_json(),
        "reproductions": done.reproductions,
        "commands": commands(row),
        "citation": citation(row),
        "files": files,
        "size": sum(file["bytes"] for file in files),
        "costs": _costs(done),
    }


def _labels(row: Row) -> list[str]:
    return ["base", *(f"{t} {task}" for t, task in enumerate(row.tasks, 1))]


def _matrix_view(row: Row) -> list[dict[str, Any]]:
    return _heat(row, row.matrix)


def _heat(row: Row, matrix: Any) -> list[dict[str, Any]]:
    lines = []
    for t, (label, cells) in enumerate(zip(_labels(row), matrix, strict=True)):
        shown = [
            {
                "value": v,
                "share": round((v or 0) / 100, 3),
                "learned": j + 1 == t,
                "general": j >= len(row.tasks),
            }
            for j, v in enumerate(cells)
        ]
        lines.append({"label": label, "cells": shown})
    return lines


def _seed_matrix(row: Row, scores: Any) -> list[dict[str, Any]]:
    doc = scores.matrix_json()
    general = doc["general"]["accuracy"] or [[] for _ in doc["accuracy"]]
    joined = [[*a, *b] for a, b in zip(doc["accuracy"], general, strict=True)]
    return _heat(row, joined) if len(joined) == len(row.tasks) + 1 else []


def _benchmarks(scored: dict[int, Any]) -> list[dict[str, Any]]:
    """General benchmarks before and after, mean over seeds."""
    if not scored:
        return []
    parts = [s.metrics["GeneralDelta"].get("benchmarks", {}) for s in scored.values()]
    out = []
    for name in parts[0]:
        if all(name in p for p in parts):
            out.append(
                {
                    "name": name,
                    **{
                        key: mean_of([p[name][key] for p in parts])
                        for key in ("before", "after", "value")
                    },
                }
            )
    return out


def _costs(done: Any) -> dict[str, Any] | None:
    """Seconds and machine as the runs recorded them: self-reported."""
    from cpt_bench.leaderboard.findings import Refused
    from cpt_bench.leaderboard.strict import read_json

    seconds, machine = [], ""
    for n in done.seeds:
        try:
            env = read_json(done.folder / f"seed-{n}" / "environment.json")
            seconds.append(sum(float(s["wall_seconds"]) for s in env["sessions"]))
            hardware = env["hardware"]
            gpus = ", ".join(map(str, hardware.get("gpus") or []))
            machine = str(gpus or f"{hardware.get('cpu', '')}, {hardware.get('cores', '')} cores")
        except (OSError, Refused, KeyError, TypeError, ValueError, AttributeError):
            return None
    return {"minutes": sum(seconds) / len(seconds) / 60, "machine": machine} if seconds else None


def commands(row: Row) -> list[str]:
    """What to type to check an entry, and to make it again."""
    entry = row.verified.entry if row.verified else None
    assert entry is not None
    place = f"leaderboards/{row.id}"
    out = [f"cptbench verify {place} --claims"]
    if entry.lane == "trainer":
        out.append(f"cptbench reproduce {place} --seed {min(entry.seeds)} --by 'YOUR NAME'")
    elif entry.checkpoints:
        out.append(f"cptbench reproduce {place} --checkpoints FOLDER --sample 10% --by 'YOUR NAME'")
    return out


def citation(row: Row) -> str:
    """BibTeX for the entry."""
    entry = row.verified.entry if row.verified else None
    assert entry is not None
    key = re.sub(r"[^a-z0-9]+", "", f"{row.name}{row.suite}{entry.date[:4]}".lower())
    fields = {
        "title": f"{row.name} on {row.suite} ({entry.division} division)",
        "author": " and ".join(entry.authors),
        "year": entry.date[:4],
        "howpublished": "cptbench leaderboard entry",
        "note": row.id,
    }
    if entry.paper:
        fields["url"] = entry.paper
    escape = {
        "\\": "",
        "{": "",
        "}": "",
        "%": r"\%",
        "#": r"\#",
        "&": r"\&",
        "$": r"\$",
        "_": r"\_",
    }
    safe = {
        name: value if name in ("url", "note") else "".join(escape.get(c, c) for c in value)
        for name, value in fields.items()
    }
    inner = ",\n".join(f"  {name} = {{{value}}}" for name, value in safe.items())
    return f"@misc{{{key},\n{inner}\n}}"
