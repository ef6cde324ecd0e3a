"""The files that a plug-in's code is in, found from its imports without running any of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from cpt_bench.plugins.index import package_folder
from cpt_bench.plugins.resolving import Located, locate


def code_files(kind: str, spec: str) -> set[Path]:
    """The file of what ``spec`` names, and the files of its own package that it imports.

    A file given by its path stands alone. Nothing is followed into other packages, and of what
    ships with this one there is nothing.

    Raises:
        CptBenchError: Nothing has that name.
    """
    found = locate(kind, spec)
    return set() if found.builtin else _files(found)


def _files(found: Located) -> set[Path]:
    place = found.target.rpartition(":")[0]
    if place.endswith(".py"):
        above = found.offer.folder if found.offer else Path()
        return {(above / place).absolute()}
    top, todo, files = place.partition(".")[0], [place], set[Path]()
    while todo:
        for file in _modules(todo.pop()):
            if file not in files:
                files.add(file)
                todo += [name for name in _imports(file) if name.partition(".")[0] == top]
    return files


def _modules(dotted: str) -> Iterator[Path]:
    """The files that importing ``dotted`` runs: its own, and those of the packages above it."""
    parts = dotted.split(".")
    for n in range(1, len(parts) + 1):
        place = package_folder(".".join(parts[:n]))
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield file.absolute()


def _imports(file: Path) -> Iterator[str]:
    package = _dotted(file.parent)
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *(node.module or "").split(".")] if node.module else above
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _dotted(folder: Path) -> list[str]:
    """The parts of the name of the package in ``folder``."""
    parts: list[str] = []
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return parts
