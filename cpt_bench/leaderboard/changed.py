"""Finds the entries to verify, and checks that published ones were not changed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.findings import printable

DEPTH = 4
"""Folders between ``leaderboards/`` and an entry's files: suite, version, division, entry."""


AROUND = ("RULES.md", "README.md", "reported.yaml")
"""Files next to the entries; a person reviews changes to them."""


def find_entries(places: Sequence[Path]) -> list[Path]:
    """The entries at or below ``places``.

    Raises:
        CptBenchError: A place does not exist.
    """
    found = []
    for place in places:
        if not place.is_dir():
            raise CptBenchError(
                "no such folder", where=place, todo="Give an entry or leaderboards/"
            )
        if (place / "entry.yaml").exists() or any(place.glob("seed-*")):
            found.append(place)
            continue
        below = {file.parent for file in place.glob("**/entry.yaml")}
        inner = [folder for folder in below if not (below & set(folder.parents))]
        found += sorted(inner) or _nameless(place)
    return found


def _nameless(place: Path) -> list[Path]:
    """A folder named like an entry that is not one is verified too, so that this is reported."""
    return [place] if place.name.count("__") == 2 else []


def changed_entries(places: Sequence[Path], commit: str) -> tuple[list[Path], list[str]]:
    """Entries that are new since ``commit``, and a line for each published one that was touched.

    A published entry is never rewritten: a correction is a new entry that supersedes it. Only a
    reproduction may be added to it.
    """
    fresh: set[Path] = set()
    lines: set[str] = set()
    for place in places:
        if not (place / "RULES.md").is_file():
            todo = "With --changed-since, give the folder of the boards"
            raise CptBenchError("holds no boards", where=place, todo=todo)
        top = Path(_git(place, "rev-parse", "--show-toplevel").strip())
        inside = place.resolve().relative_to(top.resolve())
        said = _git(
            place, "diff", "--name-status", "-z", "--no-renames", f"{commit}...HEAD", "--", "."
        )
        parts = said.split("\0")
        for status, path in zip(parts[0::2], parts[1::2], strict=False):
            below = Path(path).relative_to(inside) if inside != Path() else Path(path)
            entry = _entry_of(place, below)
            if entry is None:
                if below.name not in AROUND:
                    lines.add(f"error: stray-file: {printable(below)}: belongs to no entry")
                continue
            relative = place.resolve().joinpath(*entry.parts).relative_to(top.resolve())
            if _published(place, commit, relative):
                added = status == "A" and "reproductions" in below.parts[len(entry.parts) :][:1]
                if not added:
                    lines.add(
                        f"error: published: {printable(entry)}: is published and was changed "
                        f"({printable(below.name)}); add a new entry that supersedes it"
                    )
            elif "reproductions" in below.parts[len(entry.parts) :][:1]:
                lines.add(
                    f"error: self-reproduced: {printable(entry)}: comes with a reproduction of its "
                    "own; that is for others to add, later"
                )
            if (place / entry).is_dir():
                fresh.add(place / entry)
    return sorted(fresh), sorted(lines)


def _entry_of(place: Path, below: Path) -> Path | None:
    """The entry that a changed path, relative to ``leaderboards/``, belongs to."""
    return Path(*below.parts[:DEPTH]) if len(below.parts) > DEPTH else None


def _published(place: Path, commit: str, entry: Path) -> bool:
    return bool(_git(place, "ls-tree", commit, "--", f":/{entry.as_posix()}").strip())


def _git(place: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(place), *args], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["git failed"])[-1]
        raise CptBenchError(reason, where=place, todo="Give a commit this checkout knows")
    return done.stdout
