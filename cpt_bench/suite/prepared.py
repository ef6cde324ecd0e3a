"""Where the prepared splits of published data sets are, and the hash recorded for each.

The content of those folders is handled by :mod:`cpt_bench.sources.cache`. A card needs the recorded
hash when it is read, so that ledger keys and fingerprints cover the data that is really used.
"""

from __future__ import annotations

import os
from pathlib import Path

from cpt_bench.environment import cache_folder
from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest, digest_json, read_json
from cpt_bench.suite.cards import TaskCard
from cpt_bench.suite.origins import Hub

VARIABLE = "CPTBENCH_DATA"


def root() -> Path:
    """The folder of prepared data: ``$CPTBENCH_DATA``, else ``~/.cache/cptbench/data``.

    Raises:
        CptBenchError: The variable is not set and there is no home directory.
    """
    given = os.environ.get(VARIABLE)
    return Path(given) if given else cache_folder(VARIABLE) / "data"


def key(card: TaskCard, split: str) -> str:
    """A key for everything that decides a split's samples; cards with the same key share data."""
    assert isinstance(card.source, Hub)
    published, source = card.splits[split], card.source
    declared = {
        "version": card.version,
        "target": source.target,
        "options": source.options,
        "from": source.splits[split].model_dump(mode="json") if split in source.splits else None,
        "n": published.n,
        "draw": published.draw.model_dump() if published.draw else None,
    }
    if source.map is not None:
        mapped = source.map.model_dump(mode="json")
        declared |= {"map": mapped, "where": source.model_dump(mode="json").get("where")}
    file = source.target.rpartition(":")[0]
    if file.endswith(".py") and card.folder is not None:
        # Another suite may have a file of the same name.
        declared["code"] = digest(card.folder / file)
    return f"{split}-{digest_json(declared)[:12]}"


def folder(card: TaskCard, split: str) -> Path:
    """The folder of a prepared split, whether or not it exists."""
    return root() / card.name / key(card, split)


def is_prepared(card: TaskCard, split: str) -> bool:
    return _facts(card, split) is not None


def recorded(card: TaskCard, split: str) -> str | None:
    """The SHA-256 of a prepared split; None if it is not prepared."""
    file = _facts(card, split)
    return str(read_json(file)["sha256"]) if file else None


def _facts(card: TaskCard, split: str) -> Path | None:
    """``meta.json`` of a prepared split."""
    try:
        file = folder(card, split) / "meta.json"
    except CptBenchError:
        return None  # without a data folder cards can still be read, and nothing is prepared
    return file if file.is_file() else None
