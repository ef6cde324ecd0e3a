"""Checks that a run's answers are still those that its ledger committed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest
from cpt_bench.results.schema import read_record

ANSWERS: Final = ("/predictions/", "/forced/", "/kl.jsonl")
"""Outputs that must not change; weights may have been dropped or moved."""


def records(folder: Path) -> list[dict[str, Any]]:
    """The ledger's records of a run folder, by step name; empty without a ledger."""
    return [read_record(file) for file in sorted((folder / "ledger").glob("*.json"))]


def refuse_altered(folder: Path, committed: Iterable[dict[str, Any]]) -> None:
    """Compare a run's answers with the digests under which they were committed.

    Raises:
        CptBenchError: One was changed or removed afterwards.
    """
    for record in committed:
        for path, sha256 in record["outputs"].items():
            if not any(part in path for part in ANSWERS):
                continue
            file = folder / path
            if not file.is_file() or digest(file) != sha256:
                what = f"{path} was changed or removed after step {record['step']} had committed it"
                raise CptBenchError(what, where=folder, todo="Restore it, or run the stage again")
