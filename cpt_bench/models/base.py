"""A model on the hub -> a folder on this machine, and which commit of it is meant.

A name without a commit means, on one machine, the commit that it meant when it was first fetched:
two runs a month apart start from the same weights. What was recorded is in ``models.json`` next to
the prepared data.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cpt_bench.environment import require_training
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json, write_json
from cpt_bench.hub import snapshots
from cpt_bench.hub.names import HubName
from cpt_bench.hub.snapshots import Tell
from cpt_bench.suite.prepared import root

RECORD = "models.json"

_RECORD = TypeAdapter(dict[str, dict[str, str]])


def local_folder(name: HubName, tell: Tell = lambda line: None) -> Path:
    """The folder that holds a model of the hub: recorded, in the hub's cache, or fetched now.

    Args:
        name: The model; without a commit, the one that :func:`recorded` gives, if any.
        tell: Receives what is fetched.

    Raises:
        CptBenchError: It is neither here nor can it be fetched.
    """
    require_training()
    known = recorded(name)
    if known.get("folder") and Path(known["folder"]).is_dir():
        return Path(known["folder"])
    exact = _exact(name, known)
    folder = snapshots.cached(exact) or snapshots.fetch(exact, tell)
    if not known.get("commit"):
        record(name, commit=folder.name)
    return folder


def is_here(name: HubName) -> bool:
    """Whether :func:`local_folder` needs no network for it."""
    known = recorded(name)
    if known.get("folder") and Path(known["folder"]).is_dir():
        return True
    return snapshots.cached(_exact(name, known)) is not None


def _exact(name: HubName, known: dict[str, str]) -> HubName:
    return name._replace(revision=known.get("commit") or name.revision)


def recorded(name: HubName) -> dict[str, str]:
    """What is recorded of a model: ``commit``, ``sha256`` of its weights, ``folder``.

    Raises:
        CptBenchError: The record cannot be read.
    """
    return dict(_all().get(str(name), {}))


def record(name: HubName, **facts: str) -> None:
    """Add to what is recorded of a model."""
    known, key = _all(), str(name)
    known[key] = {**known.get(key, {}), **facts}
    write_json(root() / RECORD, dict(sorted(known.items())))


def forget_hint(name: HubName) -> str:
    """What to do where a recorded model is no longer the one that is wanted."""
    return f"If the change is wanted, delete {str(name)!r} in {root() / RECORD}"


def _all() -> dict[str, dict[str, str]]:
    file = root() / RECORD
    if not file.is_file():
        return {}
    try:
        return _RECORD.validate_python(read_json(file))
    except ValidationError:
        raise CptBenchError(
            "is not a record of models",
            where=file,
            todo="Delete it: the models in it are then looked for again",
        ) from None
