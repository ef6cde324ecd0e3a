"""Files that are either whole or absent, and digests of what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
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
    """Of everything below ``folder``: inode, size in bytes, and when it last changed (ns)."""
    found: dict[str, tuple[int, int, int]] = {}
    for place in (folder, *folder.rglob("*")):
        seen = place.lstat()
        found[str(place)] = (seen.st_ino, seen.st_size, seen.st_ctime_ns)
    return found


def digest_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a restart after any kill, sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
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
    """Write one JSON object a line, atomically."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_json(path: Path) -> Any:
    """Read a JSON file; a broken one is named with the line that breaks it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CptBenchError("no such file", where=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CptBenchError(f"not valid JSON ({error})", where=path) from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; a broken line is named by its number."""
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CptBenchError("no such file", where=path) from None
    except UnicodeDecodeError as error:
        raise CptBenchError(f"not UTF-8 ({error})", where=path) from None
    # Not splitlines(): a reply may hold U+2028 and the like, which JSON leaves unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CptBenchError(f"not valid JSON ({error})", where=f"{path}:{number}") from None
        if not isinstance(row, dict):
            raise CptBenchError("not a JSON object", where=f"{path}:{number}")
        rows.append(row)
    return rows


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` only when the block ends without an error."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a kill left
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    settle(partial, path)


@contextlib.contextmanager
def common_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path``, for what several processes may make at one time.

    Whoever is first is kept: the others made the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield partial
        partial.chmod(0o755)
        partial.replace(path)
    except OSError:
        if not path.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def settle(written: Path, path: Path) -> None:
    """Make a folder or file that is completely written become ``path``, in one step."""
    for file in (written, *written.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    if path.is_dir():
        shutil.rmtree(path)
    written.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
