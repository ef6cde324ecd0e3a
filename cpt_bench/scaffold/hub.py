"""A card for a data set of the hub, proposed from its first rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.scaffold.proposal import LOOKED_AT, SPLITS, Proposal, propose, slug
from cpt_bench.sources.hub_tables import Unfit, encoded, load


class Published(NamedTuple):
    """A data set of the hub.

    Attributes:
        name: Of the task.
        splits: ``train`` and ``test`` to the name of the split there.
        rows: The same to its number of rows.
        proposal: What its card may declare.
    """

    name: str
    splits: dict[str, str]
    rows: dict[str, int]
    proposal: Proposal


def published(repo: str, copies: Path | None) -> Published:
    """Look at a data set.

    Args:
        repo: Its id.
        copies: A folder with ``<owner>/<name>`` folders; None: the hub.

    Raises:
        CptBenchError: It cannot be read.
    """
    tables: dict[str, Any] = {}
    splits: dict[str, str] = {}
    reasons: list[str] = []
    for split, names in SPLITS.items():
        for name in names:
            try:
                tables[split] = encoded(load(repo, None, name, None, copies))
            except Unfit as reason:
                reasons.append(str(reason))
                continue
            splits[split] = name
            break
    if not tables:
        todo = "Check the name and the network, or give a local copy with --copies DIR"
        raise CptBenchError(f"no split can be read: {reasons[0]}", where=repo, todo=todo)
    table = tables.get("train", next(iter(tables.values())))
    rows = [dict(row) for row in table.select(range(min(LOOKED_AT, len(table))))]
    for column, feature in table.features.items():
        if type(feature).__name__ == "ClassLabel":
            for row in rows:
                row[column] = None if row[column] is None else feature.int2str(row[column])
    found = propose(rows, repo)
    sizes = {split: len(table) for split, table in tables.items()}
    return Published(slug(repo.rpartition("/")[2]), splits, sizes, found)


def source_of(repo: str, found: Published) -> dict[str, Any]:
    """The card's ``source.splits``; both splits are drawn from one where there is one only."""
    one = next(iter(found.splits.values()))
    names = {split: found.splits.get(split, one) for split in SPLITS}
    return {split: {"tables": [{"repo": repo, "split": name}]} for split, name in names.items()}


def sizes_of(found: Published, tested: int, share: int) -> dict[str, dict[str, Any]]:
    """The card's ``splits``."""
    if len(found.splits) == len(SPLITS):
        return {split: {"n": n, "sha256": None} for split, n in found.rows.items()}
    whole = next(iter(found.rows.values()))
    n = min(tested, max(1, whole // share))
    return {
        "train": {"n": whole - n, "sha256": None, "draw": {"seed": 0, "skip": n}},
        "test": {"n": n, "sha256": None, "draw": {"seed": 0}},
    }
