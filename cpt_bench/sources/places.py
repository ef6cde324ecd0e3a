"""Where tables are read from and written to: odd names of folders, and disks that are full."""

from __future__ import annotations

import atexit
import errno
import shutil
import tempfile
from pathlib import Path

from cpt_bench.errors import CptBenchError

MAGIC = ("*", "?", "[", "]", "{", "}", "#", "%")
"""What ``datasets`` and ``fsspec`` read as a pattern or an escape, not as a name."""

FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_WORDS = ("no space left on device", "not enough disk space", "disk quota exceeded")


def plainly_named(folder: Path) -> Path:
    """``folder``, or its files under a path that cannot be taken for a pattern of paths.

    Raises:
        CptBenchError: Its name has ``::``, or no place for links to its files has a plain name.
    """
    folder = folder.absolute()
    if "::" in str(folder.resolve()):  # even behind links
        raise CptBenchError(
            "'::' in its name would be read as one file system inside another",
            where=folder,
            todo="Rename it, or give --from a copy",
        )
    return _linked(folder) if _is_odd(folder.resolve()) or _is_odd(folder) else folder


def _is_odd(folder: Path) -> bool:
    return any(sign in str(folder) for sign in MAGIC)


def _linked(folder: Path) -> Path:
    # Links to the files: a link to the folder would be resolved, and its odd name be back. They
    # stay until the process ends: tables may name pictures by their path.
    for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if _is_odd(Path(place).resolve()):
            continue
        try:
            home = Path(tempfile.mkdtemp(prefix="cptbench-", dir=place))
        except OSError:
            continue
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        for file in folder.rglob("*"):
            if file.is_file():
                link = home / file.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
        return home
    raise CptBenchError(
        "its name would be read as a pattern, and no folder for temporary files can hold links",
        where=folder,
        todo="Rename it without any of * ? [ ] { } # %",
    )


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk or a quota."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        words = str(error).lower()
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(said in words for said in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def full(place: Path) -> CptBenchError:
    """The line for a disk that got full while ``place`` was written."""
    return CptBenchError(
        "disk full",
        where=place,
        todo="Make room, or set CPTBENCH_DATA to a folder on another disk, and run the same "
        "command again",
    )
