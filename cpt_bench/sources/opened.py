"""The files that a generator reads while it makes a split: test questions may be in them.

A trainer must not read them, wherever they are. They are found by running the generator: Python
reports every file that it opens. Files that a library opens by itself (Arrow, HDF5) are not seen
here; the card names those under ``files``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cpt_bench.plugins import package_folder

CODE = {".py", ".pyc", ".pyd", ".so", ".pth"}
FONTS = {".ttf", ".otf", ".ttc", ".pfb", ".afm"}
SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/bin")

_listening: list[set[str]] = []
_hooked = False


@contextmanager
def opened_files(target: str) -> Iterator[set[Path]]:
    """Collects the data files that are opened for reading inside this context.

    Code, fonts and what belongs to the system or to other installed packages are left out: hidden,
    they would break trainers that have nothing to do with the suite.

    Args:
        target: The generator's; what its own package brings along counts.
    """
    _install_hook()
    names: set[str] = set()
    found: set[Path] = set()
    _listening.append(names)
    try:
        yield found
    finally:
        _listening.remove(names)
        found |= {file for name in names if _is_data(file := Path(name), target)}


def _is_data(file: Path, target: str) -> bool:
    if file.suffix in CODE | FONTS or not file.is_file():
        return False
    place = target.rpartition(":")[0]
    own = [] if place.endswith(".py") else [package_folder(place.partition(".")[0]).resolve()]
    if any(file.is_relative_to(folder) for folder in own):
        return True
    installed = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix, *SYSTEM)}
    inside = [Path(p).resolve() for p in sys.path if "site-packages" in p]
    return not any(file.is_relative_to(folder) for folder in (*installed, *inside))


def _install_hook() -> None:
    global _hooked
    if not _hooked:  # a hook cannot be removed
        _hooked = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listening or event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    mode, flags = arguments[1], arguments[2]
    written = (set(mode) & set("wxa")) if isinstance(mode, str) else flags & os.O_ACCMODE
    if not written:
        name = os.path.realpath(os.fsdecode(arguments[0]))
        for names in _listening:
            names.add(name)
