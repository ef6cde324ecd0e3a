"""The code that a step runs, as a digest for its key.

Which code that is follows from the imports: from the module of the job and from those of the
plug-ins that it uses (trainer, engine, graders), every module of this package that they import, and
so on. An edit of the decoder changes the keys of all evaluations, and of the trainers that import
it; an edit of the report changes no key. Comments, docstrings and layout are left out: they change
no number.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock

PACKAGE = "cpt_bench"
MODULE = re.compile(rf"{PACKAGE}(\.\w+)+")

# Evaluation and training run at the same time, and both compute keys. CPython counts the recursion
# depth of all threads together, and may raise a SystemError when two parse at once.
_ONE_AT_A_TIME = Lock()


def code_digest(targets: Iterable[str]) -> str:
    """SHA-256 of all code of this package that ``targets`` reach, and of the targets' own.

    Args:
        targets: Modules (``cpt_bench.run.jobs.evaluate``) or plug-ins (``module:attribute``,
            ``./file.py:attribute``).
    """
    with _ONE_AT_A_TIME:
        starts = sorted({file for target in targets for file in source_files(target)})
        reached = {*starts, *reach(starts)}
        root = Path(str(importlib.util.find_spec(PACKAGE).submodule_search_locations[0]))  # type: ignore[union-attr, index]
        total = hashlib.sha256()
        for file in sorted(reached, key=str):
            # A name that is the same wherever the package is installed.
            name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
            total.update(f"{name}\0{_meaning(file)}\n".encode())
        return total.hexdigest()


def reach(files: Iterable[Path]) -> set[Path]:
    """The modules of this package that ``files`` import, directly or by way of others."""
    todo, reached = list(files), set[Path]()
    while todo:
        for module in imports_of(todo.pop()):
            file = module_file(module)
            if file is not None and file not in reached:
                reached.add(file)
                todo.append(file)
    return reached


def source_files(target: str) -> list[Path]:
    """The files of a target: a file, a module of this package, or all of another package."""
    place = target.rpartition(":")[0] or target
    if place.endswith(".py"):
        return [Path(place).resolve()]
    top = place.partition(".")[0]
    if top == PACKAGE:
        file = module_file(place)
        return [file] if file is not None else []
    found = importlib.util.find_spec(top)
    if found is None:
        return []
    folders = list(found.submodule_search_locations or ())
    if folders:
        return sorted(file for folder in folders for file in Path(folder).rglob("*.py"))
    return [Path(found.origin)] if found.origin else []


@lru_cache(maxsize=1024)
def module_file(module: str) -> Path | None:
    """The file of a module of this package; None where there is no such module.

    Nothing but the package's top folders is imported to find it.
    """
    parts = module.split(".")
    if len(parts) < 2:
        return None  # the package itself has no code of its own: it names what the API offers
    room = _folder(parts[1])
    place = room.joinpath(*parts[2:]) if room.is_dir() else room
    for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


@lru_cache(maxsize=64)
def _folder(room: str) -> Path:
    """Where a folder at the top of the package is; two of them are elsewhere in a checkout."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    inside = Path(spec.submodule_search_locations[0]) / room
    if inside.exists() or inside.with_suffix(".py").exists():
        return inside
    try:
        return Path(importlib.import_module(f"{PACKAGE}.{room}").__path__[0])
    except (ImportError, AttributeError):
        return inside


@lru_cache(maxsize=1024)
def imports_of(file: Path) -> frozenset[str]:
    """The modules of this package that ``file`` imports, at whatever depth in the file.

    A name imported from a package may be a module or not; both readings are returned, and the
    packages above a module, which run when it is imported. A text that is a module's name counts as
    an import: that is how modules are started in a process of their own, or found by name.
    """
    found: set[str] = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if MODULE.fullmatch(node.value) else set()
    inside = {name for name in found if name.startswith(f"{PACKAGE}.")}
    return frozenset(above for name in inside for above in _and_above(name))


def _and_above(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:n]) for n in range(2, len(parts) + 1))


@lru_cache(maxsize=1024)
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=str(file))


@lru_cache(maxsize=1024)
def _meaning(file: Path) -> str:
    """The file's syntax tree without docstrings, as text."""
    tree = _tree(file)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A string that stands alone documents what is above it, or the attribute before it.
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(line: ast.stmt) -> bool:
    value = line.value if isinstance(line, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
