"""What folders offer: ``plugins.yaml``, read without importing anything that it names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError, did_you_mean

HOMES = {
    "trainers": "cpt_bench.trainers",
    "suites": "cpt_bench.tasks",
    "graders": "cpt_bench.grading",
    "engines": "cpt_bench.engines",
}
"""Kind of plug-in to the package whose folder holds the built-in ones."""

INDEX, SUITE = "plugins.yaml", "suite.yaml"
VARIABLE = "CPTBENCH_PLUGINS"
"""Folders of plug-ins, separated as in ``$PATH``."""
GROUP = "cpt_bench.plugins"
"""Entry-point group of packages that offer a folder; the value is the package's dotted name."""


class Offer(NamedTuple):
    """One entry of an index.

    Attributes:
        name: Within its folder.
        target: ``module:attribute``, ``./file.py:attribute`` next to the index, or, of a suite that
            has no line in the index, ``<its folder>/suite.yaml``.
        summary: One line about it.
        folder: The index's.
        preload: Whether worker processes start with its module imported; of built-in ones alone,
            since what one package does when it is imported must not reach the runs of another.
        joint: Of a trainer: it learns all tasks in one stage.
        default_of: Commands that use it when nothing else is asked for; of built-in ones alone.
    """

    name: str
    target: str
    summary: str
    folder: Path
    preload: bool = False
    joint: bool = False
    default_of: tuple[str, ...] = ()


def read_index(folder: Path, kind: str) -> dict[str, Offer]:
    """What a folder offers of one kind, in the order listed.

    Raises:
        CptBenchError: Its index is not one.
    """
    file, found = folder / INDEX, dict[str, Offer]()
    data = read_mapping(file, "kinds of plug-ins") if file.is_file() else {}
    for known in data:
        if known not in HOMES:
            todo = did_you_mean(str(known), [*HOMES])
            raise CptBenchError(f"no kind of plug-in is called {known!r}", where=file, todo=todo)
    for name, entry in _entries(data.get(kind), f"{file}: {kind}"):
        found[name] = _offer(name, entry, folder, f"{file}: {kind}.{name}")
    if kind == "suites":
        for suite in sorted(folder.glob(f"*/{SUITE}")):
            name = suite.parent.name
            if name not in found:
                found[name] = Offer(name, f"{name}/{SUITE}", title_of(suite), folder)
    return found


def _entries(entries: Any, where: str) -> Iterator[tuple[str, Any]]:
    if entries is None:
        return
    if not isinstance(entries, dict):
        raise CptBenchError("not a mapping of names to targets", where=where)
    for name, entry in entries.items():
        if not isinstance(name, str) or not name or set(name) & set("/:@ "):
            raise CptBenchError(f"{name!r} is not fit for a name", where=where)
        yield name, entry


def _offer(name: str, entry: Any, folder: Path, where: str) -> Offer:
    entry = {"target": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("target"), str):
        raise CptBenchError("has no target", where=where, todo="Give module:Class")
    known = [field for field in Offer._fields if field not in ("name", "folder")]
    for key, value in entry.items():
        if key not in known:
            todo = did_you_mean(str(key), known)
            raise CptBenchError(f"no such key: {key!r}", where=where, todo=todo)
        wanted = Offer._field_defaults.get(key, "")
        kind = list if isinstance(wanted, tuple) else type(wanted)
        if not isinstance(value, kind):
            raise CptBenchError(f"{key} is {value!r}, not {_WORDS[kind]}", where=where)
    entry = {"summary": entry["target"], **entry, "default_of": tuple(entry.get("default_of", ()))}
    return Offer(name=name, folder=folder, **entry)


_WORDS: dict[type, str] = {str: "text", bool: "true or false", list: "a list"}


def title_of(suite: Path) -> str:
    """The title in a ``suite.yaml``, or what is wrong with the file."""
    try:
        return str(read_mapping(suite).get("title", ""))
    except CptBenchError as error:
        return f"BROKEN: {error}"


@cache
def builtin(kind: str) -> dict[str, Offer]:
    """What ships with this package, by name."""
    spec = importlib.util.find_spec(HOMES[kind])  # imports the package above it, not the folder's
    assert spec is not None and spec.submodule_search_locations
    return read_index(Path(next(iter(spec.submodule_search_locations))), kind)


def default(kind: str, command: str) -> str:
    """The built-in that ``command`` uses when nothing else is asked for."""
    return next(offer.name for offer in builtin(kind).values() if command in offer.default_of)


def preloaded() -> list[str]:
    """The modules that worker processes start with."""
    offers = [offer for kind in HOMES for offer in builtin(kind).values() if offer.preload]
    return [*dict.fromkeys(offer.target.partition(":")[0] for offer in offers)]


class Source(NamedTuple):
    """A folder of somebody else's.

    Attributes:
        folder: The folder.
        origin: ``distribution`` and ``version`` of the package that offers it, or nothing.
        shown: Where it comes from, in words.
    """

    folder: Path
    origin: dict[str, str]
    shown: str

    def offers(self, kind: str) -> list[Offer]:
        """What it offers of one kind.

        Raises:
            CptBenchError: The folder is not there, or its index is not one.
        """
        if not self.folder.is_dir():
            todo = "Reinstall it" if self.origin else f"Correct ${VARIABLE}"
            raise CptBenchError("is not a directory", where=self.folder, todo=todo)
        return [*read_index(self.folder, kind).values()]


def sources() -> Iterator[tuple[str, Source]]:
    """Name to folder, of installed packages and of the environment."""
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        if entry.dist:
            origin = {"distribution": entry.dist.name, "version": entry.dist.version}
            shown = f"{entry.dist.name} {entry.dist.version}"
            yield entry.dist.name, Source(package_folder(entry.value), origin, shown)
    for place in os.environ.get(VARIABLE, "").split(os.pathsep):
        if place:
            folder = Path(place).absolute()
            yield folder.name, Source(folder, {}, str(folder))


def package_folder(dotted: str) -> Path:
    """The folder of a package, importing nothing; where it would be, if it is not there."""
    top, *below = dotted.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:
        spec = None
    places = [*(spec.submodule_search_locations or ())] if spec else []
    return Path(places[0] if places else top, *below)


def suite_folders() -> Iterator[Path]:
    """The folders that hold suites: this package's own, and each suite's of somebody else's."""
    home = next(iter(builtin("suites").values()), None)
    if home is not None:
        yield home.folder
    for _, source in sources():
        if source.folder.is_dir():
            for offer in source.offers("suites"):
                yield from _homes(source.folder, offer.target)
    for entry in entry_points(group="cpt_bench.suites"):
        yield from _homes(Path(), suite_target(entry.value))


def suite_target(value: str) -> str:
    """The target of an entry point of a suite: a dotted folder stands for its ``suite.yaml``."""
    return value if ":" in value else f"{package_folder(value)}/{SUITE}"


def _homes(above: Path, target: str) -> Iterator[Path]:
    """The folder of a suite; of one that Python has to be asked for, all suites of its package."""
    if target.endswith(f"/{SUITE}"):
        yield (above / target).parent
    elif not target.rpartition(":")[0].endswith(".py"):
        inside = package_folder(target.partition(":")[0].partition(".")[0])
        yield from sorted({file.parent for file in inside.rglob(SUITE)})


def folders(kind: str) -> Iterator[Path]:
    """The folders that offer plug-ins of a kind, the built-in one first."""
    home = next(iter(builtin(kind).values()), None)
    if home is not None:
        yield home.folder
    yield from (source.folder for _, source in sources() if source.folder.is_dir())
