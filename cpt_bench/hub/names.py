"""How a repository on the hub is named: ``org/name``, or ``org/name@revision``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

HUB = "https://huggingface.co"

_NAME = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubName(NamedTuple):
    """A repository on the hub, and the revision of it that is asked for.

    Attributes:
        id: ``org/name``.
        revision: A commit, tag or branch; None is the main branch.
    """

    id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id


def parse(text: str) -> HubName | None:
    """The repository that ``text`` names; None where it has another form, as a path does.

    Example:
        >>> parse("Qwen/Qwen2.5-VL-3B-Instruct@main")
        HubName(id='Qwen/Qwen2.5-VL-3B-Instruct', revision='main')
        >>> parse("/data/checkpoint") is None
        True
    """
    found = _NAME.fullmatch(text)
    if found is None or ".." in found["id"] or "--" in found["id"]:
        return None
    return HubName(found["id"], found["revision"])


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit hash, which means the same files for ever."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def cached_as(folder: Path) -> HubName | None:
    """What a folder inside the hub's cache is, with its commit; None for any other folder."""
    parts = folder.parts
    if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith("models--"):
        return None
    owner, _, name = parts[-3].removeprefix("models--").partition("--")
    return HubName(f"{owner}/{name}", parts[-1]) if name else None


def address() -> str:
    """Where the hub is: ``$HF_ENDPOINT``, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def page(id: str, kind: str = "model") -> str:
    """The address of a repository's page."""
    return f"{address()}/{'datasets/' if kind == 'dataset' else ''}{id}"
