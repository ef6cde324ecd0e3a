"""What a run folder's own files must look like before anything reads a value from them.

Run folders are copied, edited and cut short. Each file is checked once, where it is read, so that
what reads it may rely on the types; a key that no reader needs may hold anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json

Seconds = Annotated[FiniteFloat, Field(ge=0)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Suite(_Shape):
    spec: str
    fingerprint: str
    name: str = ""
    version: str = ""


class _Base(_Shape):
    weights: str = ""
    path: str | None = None


class _Session(_Shape):
    wall_seconds: Seconds = 0.0


class _Hardware(_Shape):
    cpu: str | None = None
    gpus: list[str] | None = None


class RunJson(_Shape):
    """``run.json``: the first four keys stand in each, the others in runs of their kind."""

    suite: _Suite
    order: list[str]
    limit: Annotated[int, Field(gt=0)] | None
    versions: dict[str, Any]
    trainer: str | None = None
    lane: str | None = None
    origin: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    privileges: dict[str, Any] | None = None
    budget: dict[str, Any] | None = None
    endpoint: dict[str, Any] | None = None
    engine: dict[str, Any] | str | None = None
    base: _Base | None = None
    seed: int | None = None
    threads: int | None = None
    hardware: _Hardware | None = None
    sessions: list[_Session] = []


class _Facts(_Shape):
    samples: Annotated[int, Field(ge=0)] = 0
    weights: str = ""
    wall_seconds: Seconds = 0.0
    generation_seconds: Seconds = 0.0
    gpu_seconds: Seconds | None = 0.0
    peak_memory_mib: FiniteFloat | None = None


class LedgerRecord(_Shape):
    """``ledger/STEP.json``: one committed step."""

    step: str
    key: str
    inputs: dict[str, Any]
    outputs: dict[str, str]
    facts: _Facts | None
    seconds: Seconds
    dropped: list[str] = []


def read_run(folder: Path, needs: Sequence[str] = ()) -> dict[str, Any]:
    """A run folder's ``run.json``, as it is written.

    Args:
        folder: The run folder.
        needs: Further keys that must be there.

    Raises:
        CptBenchError: It is no such file; the line names the first key that is wrong.
    """
    file = folder / "run.json"
    found = _checked(RunJson, file, "not a cptbench run")
    if lacking := [key for key in needs if found.get(key) is None]:
        what = f"has no {', '.join(lacking)}: not a run that `cptbench run` trained"
        raise CptBenchError(what, where=file)
    return found


def read_record(file: Path) -> dict[str, Any]:
    """A record of the ledger, as it is written.

    Raises:
        CptBenchError: It is no such file; the line names the first key that is wrong.
    """
    return _checked(LedgerRecord, file, "not a record of a ledger")


def _checked(shape: type[BaseModel], file: Path, what: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(file)
    try:
        shape.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CptBenchError(
            f"{what} ({key}: {first['msg']})" if key else what, where=file
        ) from None
    return found
