"""Checks which entry an entry supersedes, and that its name does not look like another's."""

from __future__ import annotations

from cpt_bench.leaderboard.board import Neighbour, first_of
from cpt_bench.leaderboard.findings import Report, printable
from cpt_bench.leaderboard.names import look_alike


def check_correction(
    me: Neighbour, others: list[Neighbour], on_board: bool, report: Report
) -> None:
    """Check that a superseded entry is older, of the same division and of a common author.

    Args:
        me: The entry.
        others: Its neighbours.
        on_board: Whether it lies in a board, where what it corrects must be found.
        report: Receives findings.
    """
    folder, entry = me.folder, me.entry
    if not entry.supersedes:
        return
    if entry.supersedes == folder.name or entry.supersedes == entry.folder_name():
        report.error("supersedes", "entry.yaml", "supersedes itself")
        return
    peers = {other.folder.name: other for other in others if other.same_division(me)}
    old = peers.get(entry.supersedes)
    if old is None:
        if on_board:
            what = f"supersedes {entry.supersedes}, which is not an entry of the same board"
            report.error("supersedes", "entry.yaml", what)
        return
    if not entry.is_by(*old.entry.authors):
        authors = ", ".join(old.entry.authors)
        what = f"supersedes {old.folder.name}, whose authors ({authors}) are others"
        report.error("supersedes", "entry.yaml", what)
    if old.entry.date > entry.date:
        what = f"supersedes {old.folder.name}, which is younger"
        report.error("supersedes", "entry.yaml", what)
    if folder.name in superseded(old, peers):
        what = f"supersedes {old.folder.name}, which supersedes this one in turn"
        report.error("supersedes", "entry.yaml", what)
    for rival in peers.values():
        if rival.entry.supersedes == entry.supersedes and first_of(me, rival) != me:
            what = f"supersedes {old.folder.name}, which {rival.folder.name} supersedes already"
            report.error("supersedes", "entry.yaml", what)


def superseded(entry: Neighbour, peers: dict[str, Neighbour]) -> list[str]:
    """The names of all that an entry supersedes, directly or through others, nearest first."""
    found: list[str] = []
    name = entry.entry.supersedes
    while name and name not in found:
        found.append(name)
        name = peers[name].entry.supersedes if name in peers else ""
    return found


def check_look(me: Neighbour, others: list[Neighbour], report: Report) -> None:
    """Check that no name of a method or author would be mistaken for another one."""
    entry = me.entry
    for other in others:
        if entry.is_by(*other.entry.authors):
            continue
        pairs = [(entry.name, other.entry.name)]
        pairs += [(mine, theirs) for mine in entry.authors for theirs in other.entry.authors]
        for mine, theirs in pairs:
            if look_alike(mine, theirs) and first_of(me, other) != me:
                what = f"{printable(ascii(mine), 90)} looks like {theirs!r} of {other.folder.name}"
                report.error("look-alike", "entry.yaml", what)
