"""Finds the files that a command's script uses: another line in one of them is another method.

A Python script can import whatever is in its folder. What any script uses besides, and what a
script in another language uses at all, cannot be found out; a comment in it declares that::

    # cptbench-files: convert.py templates/*.json
"""

from __future__ import annotations

import os
from pathlib import Path

from cpt_bench.errors import CptBenchError

DECLARATION = "cptbench-files:"
BEGINNING = 16 << 10
"""Bytes of a script in which the declaration is looked for."""

ENVIRONMENT = "pyvenv.cfg"
"""The file that makes a folder a virtual environment, whose packages are not the method's."""


MOST_FOLDERS = 2000
"""Folders in which files are looked for, before a declaration is asked for."""


def used_by(script: Path) -> dict[str, Path]:
    """The files that ``script`` uses, by their names relative to its folder; not itself.

    Args:
        script: A file on a command line. What it declares is used instead of all that is in its
            folder.

    Raises:
        CptBenchError: It declares files that are not there, or its folder is too large to search.
    """
    folder = script.resolve().parent
    patterns = declared(script)
    if patterns is None:
        found = _importable(folder) if script.suffix == ".py" else []
    else:
        found = [file for pattern in patterns for file in _matching(folder, pattern, script)]
    own = script.resolve()
    return {os.path.relpath(file, folder): file for file in sorted({*found}) if file != own}


def declared(script: Path) -> list[str] | None:
    """The patterns after :data:`DECLARATION` in a script's comments; None where there is none."""
    with script.open("rb") as stream:
        beginning = stream.read(BEGINNING).decode("utf-8", errors="replace")
    lines = [line.strip() for line in beginning.splitlines() if DECLARATION in line]
    if not lines:
        return None
    return [name for line in lines for name in line.partition(DECLARATION)[2].split()]


def _matching(folder: Path, pattern: str, script: Path) -> list[Path]:
    try:
        found = [file.resolve() for file in folder.glob(pattern) if file.is_file()]
    except (ValueError, NotImplementedError):
        found = []
    if not found:
        raise CptBenchError(
            f"declares {pattern!r}, which matches no file",
            where=script,
            todo=f"Correct the line {DECLARATION} …: names and patterns relative to {folder}",
        )
    return found


def _importable(folder: Path) -> list[Path]:
    """Every Python file that a script in ``folder`` can import: in folders named as modules."""
    found = []
    for count, (place, folders, files) in enumerate(os.walk(folder)):
        if count == MOST_FOLDERS:
            raise CptBenchError(
                f"more than {MOST_FOLDERS} folders hold what the script might import",
                where=folder,
                todo=f"Declare in the script what it uses: # {DECLARATION} FILE …",
            )
        if place != str(folder) and ENVIRONMENT in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if name.isidentifier() and name != "__pycache__"]
        found += [Path(place, name) for name in files if name.endswith(".py")]
    return [file.resolve() for file in found]
