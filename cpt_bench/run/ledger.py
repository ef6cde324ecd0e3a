"""The ledger: each step of a run is recorded once, under a hash of all that can change its result.

A step is done when it has a record and its outputs are still there, byte for byte. Records are
written last and atomically: a run killed at any moment resumes with the same command and repeats
no committed step, and an output that was changed afterwards is detected.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest, digest_json, read_json, settle, write_json
from cpt_bench.results.schema import read_record


def step_key(name: str, inputs: dict[str, Any]) -> str:
    """SHA-256 of a step's name and of everything that can change its result."""
    return digest_json({"step": name, "inputs": inputs})


class Ledger:
    """Steps of one run folder, with an optional index shared with neighbouring runs.

    Args:
        folder: The run folder; records are in ``folder/ledger``.
        shared: A folder in which runs record where a step was done, so that runs that begin with
            the same stages share them.
        stages: The folders of this run's stages; outputs in other folders of another run are not
            copied. (A stage that changes no weights has the same evaluations in any order.)
    """

    def __init__(
        self, folder: Path, shared: Path | None = None, stages: Iterable[str] | None = None
    ) -> None:
        self.folder, self.shared = folder, shared
        self.stages = None if stages is None else {*stages}
        self.records = folder / "ledger"
        self.session: list[dict[str, Any]] = []
        """Records of the steps that were done since this ledger was opened."""

    def find(self, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """The record of a step that is done here or in a neighbouring run, or None.

        Args:
            name: The step's name, unique within the run, such as ``stage-2/train``.
            inputs: All that can change the result, as JSON: versions, digests, seeds, settings.

        Raises:
            CptBenchError: A committed output was changed or removed afterwards.
        """
        key = step_key(name, inputs)
        return self._own(name, key) or self._borrow(name, key)

    def record(self, name: str) -> dict[str, Any]:
        """The record of a step that is known to be done."""
        found = read_record(self._file(name))
        return found

    def commit(
        self, name: str, inputs: dict[str, Any], outputs: list[str], facts: Any, seconds: float
    ) -> dict[str, Any]:
        """Record a step whose ``outputs`` (paths relative to the run folder) are written.

        Returns:
            The record: ``key``, ``outputs`` (path to digest), ``facts``, ``seconds``.
        """
        record = {
            "step": name,
            "key": step_key(name, inputs),
            "inputs": inputs,
            "outputs": {path: digest(self.folder / path) for path in outputs},
            "facts": facts,
            "seconds": round(seconds, 3),
        }
        self._write(name, record)
        self.session.append(record)
        return record

    def _file(self, name: str) -> Path:
        return self.records / f"{name.replace('/', '.')}.json"

    def _own(self, name: str, key: str) -> dict[str, Any] | None:
        file = self._file(name)
        if not file.is_file():
            return None
        record = read_record(file)
        if record["key"] != key:
            return None  # the inputs changed: the step must be done again
        for path, committed in record["outputs"].items():
            if path in record.get("dropped", ()):
                continue  # weights removed on purpose, once their digest was recorded
            if not (self.folder / path).exists() or digest(self.folder / path) != committed:
                raise CptBenchError(
                    f"{path} was changed or removed after step {name} had committed it",
                    where=self.folder,
                    todo=f"Restore it, or delete {file} to do the step again",
                )
        return record

    def _borrow(self, name: str, key: str) -> dict[str, Any] | None:
        """The same step from a neighbouring run, with its outputs copied here."""
        pointer = self.shared / f"{key}.json" if self.shared else None
        if pointer is None or not pointer.is_file():
            return None
        try:
            other = Ledger(Path(read_json(pointer)["run"]))
        except (CptBenchError, KeyError, TypeError):
            return None  # the pointer is damaged
        if other.folder == self.folder:
            return None
        partial = self.records / f".{key}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            record = other.record(name)
            if record["key"] != key or "dropped" in record or not self._fits(record):
                return None
            for path, committed in record["outputs"].items():
                source, copy = other.folder / path, partial / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, copy, symlinks=True)
                else:
                    shutil.copy2(source, copy)
                if digest(copy) != committed:
                    return None
            for path in record["outputs"]:
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                settle(partial / path, self.folder / path)
        except (OSError, CptBenchError):
            return None  # the other run is damaged, or is just dropping its weights
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        record = {**record, "reused": other.folder.name}
        self._write(name, record)
        return record

    def _fits(self, record: dict[str, Any]) -> bool:
        """Whether a record's outputs have the paths that this run uses."""
        parts = [path.split("/") for path in record["outputs"]]
        known = self.stages
        return known is None or all(p[1] in known for p in parts if p[0] == "stages")

    def _write(self, name: str, record: dict[str, Any]) -> None:
        write_json(self._file(name), record)
        if self.shared is not None and "reused" not in record:
            pointer = self.shared / f"{record['key']}.json"
            write_json(pointer, {"run": str(self.folder.resolve())})

    def drop(self, name: str, output: str) -> None:
        """Remove one output, such as large weights, but leave its digest in the record.

        The record is marked first, so that the run does not look damaged if it is killed in
        between.
        """
        record = self.record(name)
        dropped = sorted({*record.get("dropped", []), output})
        write_json(self._file(name), {**record, "dropped": dropped})
        shutil.rmtree(self.folder / output, ignore_errors=True)
