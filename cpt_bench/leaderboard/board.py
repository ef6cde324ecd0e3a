"""The board of an entry: its neighbours, and which of two entries was published first."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cpt_bench.leaderboard.entry import Entry, read_entry
from cpt_bench.leaderboard.findings import Refused


class Neighbour(NamedTuple):
    """Another entry of the same suite and version.

    Attributes:
        folder: Where it lies.
        entry: Its ``entry.yaml``.
        published: Whether it lies on a board that was given as that of the published entries.
    """

    folder: Path
    entry: Entry
    published: bool = False

    @property
    def place(self) -> tuple[str, ...]:
        """Suite, version, division and folder: where it lies on its board."""
        return self.folder.parts[-4:]

    def same_division(self, other: Neighbour) -> bool:
        """Whether both are of one division, on whichever board."""
        return self.place[:3] == other.place[:3]


def as_neighbour(folder: Path, entry: Entry, boards: Sequence[Path] = ()) -> Neighbour:
    """An entry with what its neighbours are compared with."""
    return Neighbour(folder, entry, len(folder.parents) > 3 and folder.parents[3] in boards)


def neighbours(folder: Path, entry: Entry, boards: Sequence[Path] = ()) -> list[Neighbour]:
    """The entries of the same suite and version, of all divisions, by place.

    Args:
        folder: Of the entry.
        entry: Its ``entry.yaml``.
        boards: Other boards than its own to look on; their entries are published ones.

    Returns:
        None where the folder does not lie as on a board. An entry that cannot be read is left out,
        and so is one at the same place of another board: it is this one.
    """
    if folder.parts[-4:-1] != (entry.suite.label, entry.suite.version, entry.division):
        return []
    own = folder.parents[3]
    tops = [board / entry.suite.label / entry.suite.version for board in (own, *boards)]
    found = []
    for file in sorted({file for top in tops for file in top.glob("*/*/entry.yaml")}):
        if file.parts[-5:-1] == folder.parts[-4:] or file.parent.is_symlink():
            continue
        try:
            info = file.stat()
            other = _read(file.parent, (info.st_mtime_ns, info.st_size))
        except (Refused, OSError):
            continue
        found.append(Neighbour(file.parent, other, published=file.parents[4] in boards))
    return found


@functools.lru_cache(maxsize=8192)
def _read(folder: Path, stamp: tuple[int, int]) -> Entry:
    """Read an entry; ``stamp`` changes with the file, so that the cache returns no old one."""
    return read_entry(folder)


def first_of(one: Neighbour, two: Neighbour) -> Neighbour | None:
    """The older of two entries; None if neither is older.

    What was published first is older, whatever date an entry gives itself: what lies on a board of
    published entries, and what came into the history of the checkout before the other. Dates of
    commits are not believed either, only which commit follows which. Where there is no history, the
    dates of packing decide; of one day, an entry that lies where it belongs is older than one that
    does not.
    """
    if one.published != two.published:
        return one if one.published else two
    added = _added(one.folder), _added(two.folder)
    for mine, theirs, entry in ((*added, one), (*added[::-1], two)):
        if mine and mine != theirs and (not theirs or _follows(theirs, mine, one.folder)):
            return entry
    if one.entry.date != two.entry.date:
        return one if one.entry.date < two.entry.date else two
    placed = [e.folder.name == e.entry.folder_name() for e in (one, two)]
    if placed[0] != placed[1]:
        return one if placed[0] else two
    return None


@functools.lru_cache(maxsize=4096)
def _added(folder: Path) -> str:
    """The commit that brought an entry into the history of its checkout; empty if none did."""
    found = _git(folder, "log", "--diff-filter=A", "--format=%H", "--", "entry.yaml").split()
    return found[-1] if found else ""


def _follows(commit: str, earlier: str, folder: Path) -> bool:
    """Whether a commit has another one among its ancestors."""
    base = _git(folder, "merge-base", commit, earlier).strip()
    return base == earlier


def _git(folder: Path, *args: str) -> str:
    command = ["git", "-C", str(folder), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout
