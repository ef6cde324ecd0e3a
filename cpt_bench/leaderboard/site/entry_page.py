"""What the page of an entry shows."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from cpt_bench.leaderboard.findings import Refused
from cpt_bench.leaderboard.site.collect import GAP, RANKED_BY, Row
from cpt_bench.leaderboard.stats import mean_of
from cpt_bench.leaderboard.strict import read_json
from cpt_bench.metrics import SIGNED as MEASURED

COLUMNS = (
    "Learn", "AvgAcc", "FM", "GeneralDelta", "GapToJoint", "FM_paper", "BWT", "FWT", "Gain",
    "BaseAcc",
)  # fmt: skip
SIGNED = MEASURED | {GAP}
HEADLINE = ("Learn", "AvgAcc", "FM", "GeneralDelta", "GapToJoint")


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
    return page_name(row.id)


def page_name(place: str) -> str:
    """The page of the entry at a place."""
    return "entries/" + re.sub(r"[^A-Za-z0-9._-]+", "--", place) + ".html"


def files_of(row: Row, page: Path, repository: str) -> list[dict[str, Any]]:
    """The entry's files, each with its size and a link from ``page``."""
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
    table = [_line(row, key, scored) for key in row.metrics]
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
        "headline": HEADLINE,
        "unseen": unseen(row),
        "bound_page": page_name(row.bound) if row.bound else "",
    }


def _line(row: Row, key: str, scored: dict[int, Any]) -> dict[str, Any]:
    """A line of the table of metrics."""
    line = {"key": key, "mean": row.metrics[key], "signed": key in SIGNED}
    if key == GAP:  # of two entries, so that no seed has a passport of it
        formula = f"{RANKED_BY} - {RANKED_BY} of the joint entry"
        return {**line, "formula": formula, "seeds": [(None, None) for _ in scored]}
    passports = [s.metrics[key] for s in scored.values()]
    seeds = [
        (p["value"], p["interval"] and (p["interval"]["low"], p["interval"]["high"]))
        for p in passports
    ]
    return {**line, "formula": passports[0]["formula"], "seeds": seeds}


UNSEEN = (
    "Recomputing shows that the numbers follow from the answers. It cannot show that the model "
    "gave these answers: if somebody improves answers throughout, or exchanges the answers of two "
    "stages, and makes scores, digests and records fit, only running the method again reveals it."
)
"""What an entry alone cannot show, as ``leaderboards/RULES.md`` explains."""


def unseen(row: Row) -> list[str]:
    """In words, what the verification of an entry cannot show, and how much of it was run again."""
    done = row.verified
    assert done is not None and done.entry is not None
    out = [UNSEEN]
    for found in done.reproductions:
        report = found.report
        when = f"seed {report.seed} by {report.by} on {report.date}"
        if found.lifts:
            again = "trained again" if report.kind == "rerun" else "asked again, with its weights,"
            out.append(
                f"Reproduced: {when} was {again} and came out within tolerance, stage by stage. "
                "For that seed such changes are excluded as far as the tolerance below reaches."
            )
        elif found.reproduced and found.independent:
            out.append(f"Part of {when} was asked again, not every stage: the badge stays.")
        elif found.reproduced:
            out.append(f"Run again: {when}, an author or so called: the badge stays.")
        else:
            out.append(f"Not reproduced: {when} came out differently.")
    again_seeds = {found.report.seed for found in done.reproductions if found.lifts}
    rest = sorted(set(done.entry.seeds) - again_seeds)
    if not again_seeds:
        out.append(f"Nobody else has done so for this entry: its badge is {row.badge!r}.")
    elif rest:
        out.append(f"Not run again: seeds {', '.join(map(str, rest))}.")
    return out


def _labels(row: Row) -> list[str]:
    if row.division == "joint":
        return ["base", *("" for _ in row.tasks[1:]), "all tasks"]
    return ["base", *(f"{t} {task}" for t, task in enumerate(row.tasks, 1))]


def _matrix_view(row: Row) -> list[dict[str, Any]]:
    return _heat(row, row.matrix)


def _heat(row: Row, matrix: Any) -> list[dict[str, Any]]:
    lines = []
    for t, (label, cells) in enumerate(zip(_labels(row), matrix, strict=True)):
        if all(v is None for v in cells):
            continue  # joint training has no stages between
        shown = [
            {
                "value": v,
                "share": round((v or 0) / 100, 3),
                "learned": j + 1 == t and row.division != "joint",
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
