"""Reproductions of entries, written as ``cptbench reproduce`` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpt_bench.leaderboard.entry import slug
from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.reproduce import _report
from tests.support.entries.forge import rows


def write_reproduction(entry: Path, by: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """A rerun of seed 0 whose answers are those of seed 0, changed."""
    folder = entry / "reproductions" / f"2026-11-25__{slug(by)}"
    for file in (entry / "seed-0/predictions").rglob("*.zst"):
        new = rows(file)
        if file.parent.name == "3-text":
            change(new)
        target = folder / "predictions" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        kept = ({k: row[k] for k in ("id", "reply", "tokens")} for row in new)
        zst(target, ((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in kept))
    said = {
        "kind": "rerun",
        "seed": 0,
        "sample": 1.0,
        "weights": {},
        "versions": {},
        "hardware": {},
    }
    _report(folder, by, "2026-11-25", said)
