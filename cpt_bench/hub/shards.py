"""A model's settings and the index of its weights; anybody may have written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json

INDEX = "model.safetensors.index.json"
RESTORE = "Restore it from where the model comes from"


def settings_of(file: Path) -> dict[str, Any]:
    """A JSON file of settings.

    Raises:
        CptBenchError: It is not a JSON object.
    """
    found = read_json(file)
    if not isinstance(found, dict):
        raise CptBenchError(
            "holds no settings (a JSON object)",
            where=file,
            todo=RESTORE,
        )
    return found


def shards_of(folder: Path) -> list[str]:
    """The names of the files that an index says hold the weights; empty where there is no index.

    Raises:
        CptBenchError: The index names none.
    """
    file = folder / INDEX
    if not file.is_file():
        return []
    named = settings_of(file).get("weight_map")
    names = [*named.values()] if isinstance(named, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise CptBenchError(
            "names no files (weight_map)",
            where=file,
            todo=RESTORE,
        )
    return sorted(set(names))
