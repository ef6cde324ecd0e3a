"""The board that an entry lies in: its neighbours, and which of two entries was there first."""

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
        entry: What its ``entry.yaml`` says.
    """

    folder: Path
    entry: Entry

    @property
    def place(self) -> tuple[str, ...]:
        """Suite, version, division and folder: where it lies on its board."""
        return self.folder.parts[-4:]

    def is_beside(self, other: Neighbour) -> bool:
        """Whether both are of one division, on whichever board."""
        return self.place[:3] == other.place[:3]


def neighbours(folder: Path, entry: Entry, boards: Sequence[Path] = ()) -> list[Neighbour]:
    """The entries of the same suite and version, of all divisions, by place.

    Args:
        folder: Of the entry.
        entry: What it says.
        boards: Other boards than its own to look on.

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
        found.append(Neighbour(file.parent, other))
    return found


@functools.lru_cache(maxsize=8192)
def _read(folder: Path, stamp: tuple[int, int]) -> Entry:
    """An entry's words; ``stamp`` makes a changed file another one to the cache."""
    return read_entry(folder)


def first_of(one: Neighbour, two: Neighbour) -> Neighbour | None:
    """The older of two entries; None where neither is.

    What was published first is older, whatever date an entry gives itself. Where no history says
    so, the dates of packing do; of one day, what lies where it belongs comes before what does not.
    """
    known = _published(one.folder), _published(two.folder)
    if known[0] != known[1]:
        return one if known[0] < known[1] else two
    if one.entry.date != two.entry.date:
        return one if one.entry.date < two.entry.date else two
    placed = [e.folder.name == e.entry.folder_name() for e in (one, two)]
    if placed[0] != placed[1]:
        return one if placed[0] else two
    return None


NEVER = 1 << 62


@functools.lru_cache(maxsize=4096)
def _published(folder: Path) -> int:
    """When the entry came into the history of its checkout, in seconds; :data:`NEVER` if not."""
    command = ["git", "-C", str(folder), "log", "--diff-filter=A", "--format=%ct", "--"]
    try:
        done = subprocess.run(
            [*command, "entry.yaml"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return NEVER
    times = done.stdout.split()
    return int(times[-1]) if done.returncode == 0 and times else NEVER
