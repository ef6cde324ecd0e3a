"""From a name to what it stands for: found without importing it, or imported, or listed."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.plugins.index import (
    INDEX,
    SUITE,
    VARIABLE,
    Offer,
    builtin,
    package_folder,
    sources,
    suite_target,
    title_of,
)


class Resolved(NamedTuple):
    """What a name stands for, and where it came from.

    Attributes:
        name: A short name fit for a folder and a table.
        value: The object.
        origin: ``spec`` and ``module`` as given, ``distribution`` and ``version`` of what was
            installed, ``sha256`` over the code: all that distinguishes two methods of one name.
        folder: Where its code is.
    """

    name: str
    value: Any
    origin: dict[str, str]
    folder: Path


class Located(NamedTuple):
    """A name that was found; nothing of it is imported yet.

    Attributes:
        name: A short name.
        target: As in :class:`Offer`.
        origin: What is known of it without importing.
        folder: Where its code is, or its index; None where that takes importing it.
        builtin: Whether it ships with this package.
        offer: Its line in an index, if it has one.
    """

    name: str
    target: str
    origin: dict[str, str]
    folder: Path | None
    builtin: bool = False
    offer: Offer | None = None


def locate(kind: str, spec: str) -> Located:
    """Find what ``spec`` names among the ``kind`` of plug-ins, importing nothing.

    Raises:
        CptBenchError: Nothing has that name, or two things have it.
    """
    own = builtin(kind)
    if spec in own:
        origin = {"spec": spec, "distribution": "cptbench", "version": version("cptbench")}
        return Located(spec, own[spec].target, origin, own[spec].folder, True, own[spec])
    if ":" in spec:
        place, _, attribute = spec.rpartition(":")
        if place.endswith(".py") and not Path(place).is_file():
            raise CptBenchError("no such file", where=place, todo="Give ./file.py:Class")
        return Located(attribute, spec, {"spec": spec}, _code_folder(spec))
    if spec.endswith(".py"):
        what = f"names a file, and not what in it is the {kind[:-1]}"
        raise CptBenchError(what, where=spec, todo=f"Write {spec}:NAME")
    found = [*_others(kind, spec.partition("/")[0])] if "/" in spec else []
    named = [located for located in found if located.origin["spec"] == spec]
    if len(named) > 1:
        raise CptBenchError(f"two {kind} are called {spec!r}", todo="Rename one of their folders")
    if named:
        return named[0]
    if "/" in spec and not found:
        todo = f"No installed package, and no folder of ${VARIABLE}, of that name offers {kind}"
    else:
        known = [row.name for row in listing(kind)]
        same = [name for name in known if name.endswith(f"/{spec}")]
        todo = did_you_mean(same[0] if same else spec, known)
    raise CptBenchError(f"no {kind[:-1]} is called {spec!r}", todo=todo)


def _others(kind: str, above: str) -> Iterator[Located]:
    """What the package or folder called ``above`` offers."""
    for entry in _installed(kind):
        if entry.dist and entry.dist.name == above:
            origin = {"distribution": entry.dist.name, "version": entry.dist.version}
            spec = {"spec": f"{above}/{entry.name}"}
            target, folder = entry.value, _code_folder(entry.value)
            if kind == "suites" and (target := suite_target(entry.value)).endswith(f"/{SUITE}"):
                folder, target = Path(target).parent.parent, "/".join(Path(target).parts[-2:])
            yield Located(entry.name, target, spec | origin, folder)
    for name, source in sources():
        if name == above:
            for offer in source.offers(kind):
                origin = {"spec": f"{above}/{offer.name}", **source.origin}
                yield Located(offer.name, offer.target, origin, source.folder, offer=offer)


def _code_folder(target: str) -> Path | None:
    """The folder of a target's code, where that can be known without importing it."""
    place = target.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place).parent
    folder = package_folder(place)
    if folder.is_dir():
        return folder
    return folder.parent if folder.with_suffix(".py").is_file() else None


def resolve(kind: str, spec: str) -> Resolved:
    """Find what ``spec`` names among the ``kind`` of plug-ins, and import it.

    Raises:
        CptBenchError: Nothing has that name, or what has it cannot be imported.
    """
    found = locate(kind, spec)
    if found.target.endswith(f"/{SUITE}"):
        assert found.folder is not None
        folder = (found.folder / found.target).parent
        return Resolved(found.name, folder, _origin(found, code_digest(folder)), folder)
    module, value = _imported(found, spec)
    file, package = Path(module.__file__ or ""), module.__package__ or ""
    # A module of a package may use all of it, a file next to an index all of that folder. This
    # package's own trainers use their folder, and what the version names.
    if found.builtin:
        code = file.parent
    elif package:
        code = file.parents[package.count(".")]
    else:
        code = found.offer.folder if found.offer else file
    return Resolved(found.name, value, _origin(found, code_digest(code)), file.parent)


def value_of(kind: str, spec: str) -> Any:
    """What ``spec`` names, imported; no other file of its package is read.

    For processes that train: of a package that holds a suite, they may not read all.

    Raises:
        CptBenchError: Nothing has that name, or what has it cannot be imported.
    """
    return _imported(locate(kind, spec), spec)[1]


def _imported(found: Located, spec: str) -> tuple[ModuleType, Any]:
    place, _, attribute = found.target.rpartition(":")
    module = _from_file(place, found) if place.endswith(".py") else _import(place, spec)
    return module, _attribute(module, attribute, spec)


def _origin(found: Located, sha256: str) -> dict[str, str]:
    return {**found.origin, "module": found.target, "sha256": sha256}


def code_digest(place: Path) -> str:
    """SHA-256 of a file of Python, or of all that a folder and those below it hold, with names.

    Suites below the folder are left out: their own fingerprint covers them, and where a trainer
    trains they are closed to it.
    """
    total = hashlib.sha256()
    for part in _python(place) if place.is_dir() else [place]:
        name = part.relative_to(place if place.is_dir() else place.parent)
        total.update(name.as_posix().encode() + part.read_bytes())
    return total.hexdigest()


def _python(folder: Path) -> list[Path]:
    suites = {file.parent for file in folder.rglob(SUITE)} - {folder}
    return [file for file in sorted(folder.rglob("*.py")) if suites.isdisjoint(file.parents)]


def _installed(kind: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"cpt_bench.{kind}"), key=lambda e: e.name)


def load(target: str, folder: Path | None = None) -> Any:
    """The object at ``module:attribute``, or at ``./file.py:attribute`` in ``folder``.

    Raises:
        CptBenchError: It cannot be imported, or is not there.
    """
    place, _, attribute = target.rpartition(":")
    if not place:
        raise CptBenchError("names no function", where=target, todo=f"Write {target}:NAME")
    if not place.endswith(".py"):
        return _attribute(_import(place, target), attribute, target)
    file = Path(place) if folder is None else folder / place
    if not file.is_file():
        raise CptBenchError("no such file", where=file, todo="Correct the target")
    name = f"{folder.name}_{file.stem}" if folder else file.stem
    return _attribute(_run(file, name, str(file)), attribute, target)


def _from_file(place: str, found: Located) -> ModuleType:
    file, name = Path(place), Path(place).stem
    if found.offer is not None:
        file = found.offer.folder / place
        name = f"{found.offer.folder.name}_{name}"
        if not file.is_file():
            raise CptBenchError("no such file", where=file, todo=f"Correct {INDEX}")
    return _run(file, name, place)


def _run(file: Path, name: str, shown: str) -> ModuleType:
    # Registered under a name of its own, so that a worker process can unpickle what it defines.
    module_name = f"cptbench_plugin_{name}"
    module_spec = importlib.util.spec_from_file_location(module_name, file)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise CptBenchError(f"{type(error).__name__}: {error}", where=shown) from error
    return module


def _import(module_name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("torch", "transformers", "trl", "datasets", "accelerate", "tokenizers"):
            raise CptBenchError(
                f"{spec!r} needs {missing}, which is not installed",
                todo="Install it with: pip install 'cptbench[train]'",
            ) from error
        raise CptBenchError(f"cannot import {module_name!r} ({error})", where=spec) from error
    except (Exception, SystemExit) as error:
        problem = f"importing {module_name!r} failed ({type(error).__name__}: {error})"
        raise CptBenchError(problem, where=spec) from error


def _attribute(module: ModuleType, attribute: str, spec: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise CptBenchError(
            f"{module.__name__} has no {attribute!r}",
            where=spec,
            todo=did_you_mean(attribute, names),
        ) from None


# ---------------------------------------------------------------------------------------- listing


class Listing(NamedTuple):
    """One row of ``cptbench list``."""

    name: str
    summary: str
    origin: str


def listing(kind: str) -> list[Listing]:
    """All that :func:`resolve` finds by name, importing nothing; a broken index is a row too."""
    rows = [Listing(offer.name, offer.summary, "built in") for offer in builtin(kind).values()]
    for entry in _installed(kind):
        if entry.dist:
            origin, summary = f"{entry.dist.name} {entry.dist.version}", entry.value
            if kind == "suites" and (target := suite_target(summary)).endswith(f"/{SUITE}"):
                summary = title_of(Path(target))
            rows.append(Listing(f"{entry.dist.name}/{entry.name}", summary, origin))
    for above, source in sources():
        try:
            offers = source.offers(kind)
        except CptBenchError as error:
            rows.append(Listing(above, f"BROKEN: {error}", source.shown))
            continue
        rows += [Listing(f"{above}/{o.name}", o.summary, source.shown) for o in offers]
    return rows
