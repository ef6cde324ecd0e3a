"""Writes files atomically, reads them with clear errors, and computes digests."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files by their relative names."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
    return total.hexdigest()


def times_of_change(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size in bytes and time of the last change (ns) of everything below ``folder``."""
    found: dict[str, tuple[int, int, int]] = {}
    for place in (folder, *folder.rglob("*")):
        seen = place.lstat()
        found[str(place)] = (seen.st_ino, seen.st_size, seen.st_ctime_ns)
    return found


def digest_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors=HALVES)).hexdigest()


HALVES = "backslashreplace"
"""Writes half a surrogate pair, which UTF-8 cannot encode, as an escape.

Models generate such halves, and JSON allows them as escapes; ``\\ud83d`` in a JSON string is read
back unchanged.
"""


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically: a reader, or a restart after a kill, sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent, fcntl.LOCK_SH):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        _hold(handle)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors=HALVES, newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_json(path: Path) -> Any:
    """Read a JSON file; if it is broken, the error names the file and the line."""
    try:
        return parsed(decoded(read_bytes(path), path))
    except ValueError as error:
        raise CptBenchError(f"not valid JSON ({error})", where=path) from None


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text from outside; ``tests/test_rooms.py`` names who else may decode.

    Raises:
        ValueError: It is not JSON, or it is nested too deeply for Python.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def strictly_parsed(text: str) -> Any:
    """The value of a JSON text whose objects have each key once and whose numbers are finite.

    Raises:
        ValueError: It is not such a text.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; the error for a broken line has its number."""
    return [row for _, row in parse_jsonl(read_bytes(path), path)]


def read_bytes(path: Path) -> bytes:
    """A file's bytes; if it cannot be read, the error names the file and the reason."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CptBenchError("no such file", where=path) from None
    except ValueError as error:  # a name with a NUL character
        raise CptBenchError(f"cannot be read ({error})", where=repr(str(path))) from None


def decoded(data: bytes, name: object) -> str:
    """UTF-8 as text, without the byte-order mark that some editors write."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CptBenchError(
            f"not UTF-8 (byte 0x{data[error.start]:02x}: {error.reason})",
            where=f"{name}:{line}",
            todo="Save it as UTF-8",
        ) from None


def whole_characters(text: str) -> str:
    """``text`` with U+FFFD for each half of a surrogate pair, which no UTF-8 file can hold.

    A server's JSON may write such halves as escapes. Two halves that belong together are one
    character.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def parse_jsonl(data: bytes, name: object) -> list[tuple[str, dict[str, Any]]]:
    """Each line's place (``file:3``) and JSON object; empty lines are skipped.

    Args:
        data: The lines in UTF-8, with or without a byte-order mark.
        name: The file's name, for the places.

    Raises:
        CptBenchError: A line is not a JSON object with each key once and finite numbers.
    """
    rows = []
    # Not splitlines(): a reply may contain U+2028 and the like, which JSON does not escape.
    for number, line in enumerate(decoded(data, name).split("\n"), 1):
        if not line or line.isspace():
            continue
        where = f"{name}:{number}"
        try:
            row = strictly_parsed(line)
        except ValueError as error:
            raise CptBenchError(f"not valid JSON ({error})", where=where) from None
        if not isinstance(row, dict):
            raise CptBenchError("not a JSON object", where=where)
        rows.append((where, row))
    return rows


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_each_key_once)


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` only when the block ends without an error."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left over from a kill
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    settle(partial, path)


@contextlib.contextmanager
def common_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path``, which several processes may create at the same time.

    The first one's folder is used; the others' are dropped, since they have the same content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent, fcntl.LOCK_SH):
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        handle = os.open(partial, os.O_RDONLY)
        _hold(handle)
    try:
        yield partial
        partial.chmod(0o755)
        partial.replace(path)
    except OSError:
        if not path.exists():
            raise
    finally:
        os.close(handle)
        shutil.rmtree(partial, ignore_errors=True)


# ------------------------------------------------------------------------- what a kill left behind

UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names of what :func:`write_text` and :func:`common_folder` write before it has its own name."""


def clear_unfinished(root: Path, leave: Container[str] = ()) -> list[Path]:
    """Remove what killed processes left half-written under ``root``.

    Who writes holds a lock on the unfinished file or folder, and the system gives it up when the
    process ends, however it ends. So what is locked is left alone, and so is everything on a file
    system without locks.

    Args:
        root: Where to look.
        leave: Names of folders that are not looked into.

    Returns:
        What was removed.
    """
    removed = []
    for folder, inside, files in os.walk(root):
        found = [name for name in (*inside, *files) if UNFINISHED.fullmatch(name)]
        inside[:] = [name for name in inside if name not in leave and name not in found]
        if not found:
            continue
        with _locked(Path(folder), fcntl.LOCK_EX) as alone:  # nobody is between making and locking
            removed += [p for name in found if alone and _removed(p := Path(folder, name))]
    return removed


def _removed(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it has just got its name, or is a link, which nothing here makes
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(handle)
    return not path.exists()


def _hold(handle: int) -> None:
    """Lock what is open until it is closed; a file system without locks goes without."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[bool]:
    """Whether the folder is locked: shared by those who begin a file, or for one who clears."""
    wait = 0 if how == fcntl.LOCK_SH else fcntl.LOCK_NB
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # it may be written to, but not be listed
        yield False
        return
    try:
        try:
            fcntl.flock(handle, how | wait)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(handle)


def settle(written: Path, path: Path) -> None:
    """Move a completely written folder or file to ``path``, in one step."""
    for file in (written, *written.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    if path.is_dir():
        shutil.rmtree(path)
    written.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make a rename survive a power cut, if the system can sync folders."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
