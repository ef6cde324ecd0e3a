"""Checks the files of an entry before reading any: names, kinds, sizes, and that each is listed."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from cpt_bench.leaderboard.entry import (
    REPRODUCTION,
    SEED_FILES,
    SEED_FOLDER,
    FileRef,
    Manifest,
    known_file,
    known_seed_file,
    safe_path,
)
from cpt_bench.leaderboard.findings import Refused, Report
from cpt_bench.leaderboard.rules import Rules
from cpt_bench.leaderboard.strict import read_frame

MAX_DEPTH = 7

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".npy", ".npz", ".joblib")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
CODE = (".py", ".pyc", ".so", ".sh", ".js", ".html", ".svg", ".exe", ".dll", ".ipynb")


def check_tree(root: Path, rules: Rules, report: Report) -> bool:
    """Check every name below ``root`` without opening any file.

    Returns:
        Whether it is safe to read on.
    """
    safe, count, total, seen = True, 0, 0, dict[str, str]()
    folders: set[str] = set()
    for path, entry in _walk(root, report):
        count += 1
        if count > rules.entry_files:
            report.error("too-many-files", root.name, f"more than {rules.entry_files} files")
            return False
        info = entry.stat(follow_symlinks=False)
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            safe = False
            report.error("name-collision", path, f"is {seen[folded]!r} on a system that folds case")
        seen[folded] = path
        if entry.is_symlink():
            report.error("symlink", path, "is a symbolic link")
            safe = False
            continue
        if stat.S_ISDIR(info.st_mode):
            folders.add(path)
            if not _expected_folder(path):
                report.error("unknown-folder", path, "is no folder that the format has")
            continue
        if not stat.S_ISREG(info.st_mode):
            report.error("not-a-file", path, "is neither a file nor a folder")
            safe = False
            continue
        total += info.st_size
        safe &= _check_file(path, info, rules, report)
        for parent in Path(path).parents:
            folders.discard(parent.as_posix())
    for folder in sorted(folders):
        report.error("empty-folder", folder, "is an empty folder")
    seeds = sum(1 for p in seen if p.count("/") == 1 and p.endswith("/manifest.json")) or 1
    if total > rules.seed_bytes * (seeds + 1):
        report.error("too-big", root.name, f"{total:,} bytes; at most {rules.seed_bytes:,} a seed")
        safe = False
    return safe


def _walk(root: Path, report: Report) -> Iterator[tuple[str, os.DirEntry[str]]]:
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                path = f"{prefix}{entry.name}"
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    if path.count("/") >= MAX_DEPTH:
                        report.error("too-deep", path, f"lies deeper than {MAX_DEPTH} folders")
                    else:
                        waiting.append((Path(entry.path), f"{path}/"))


def _check_file(path: str, info: os.stat_result, rules: Rules, report: Report) -> bool:
    name = path.rpartition("/")[2]
    lower = name.lower()
    if not unicodedata.is_normalized("NFC", path):
        report.error("unicode-form", path, "its name is not in Unicode form NFC")
        return False
    if not safe_path(path):
        report.error("name", path, "its name has characters or a form that files here do not have")
        return False
    if info.st_mode & 0o111:
        report.error("executable", path, "may be executed; nothing in an entry is")
    if info.st_size > rules.file_bytes:
        report.error("too-big", path, f"{info.st_size:,} bytes; at most {rules.file_bytes:,}")
        return False
    for suffixes, code, what in (
        (PICKLES, "pickle", "is a pickle or a binary of arrays; entries hold neither"),
        (ARCHIVES, "archive", "is an archive; entries hold plain files"),
        (CODE, "code", "is code; entries hold data"),
    ):
        if lower.endswith(suffixes):
            report.error(code, path, what)
            return True
    if not known_file(path):
        report.error("unknown-file", path, "is no file that the format has")
    return True


def _expected_folder(path: str) -> bool:
    parts = path.split("/")
    if parts[0] == "reproductions":
        if len(parts) == 1:
            return True
        if not REPRODUCTION.fullmatch(parts[1]):
            return False
        parts = parts[1:]
    elif not SEED_FOLDER.fullmatch(parts[0]):
        return False
    return len(parts) == 1 or (
        parts[1] in ("predictions", "replies", "forced", "kl")
        and len(parts) <= 3
        and (len(parts) == 2 or safe_path(parts[2]))
    )


def seed_folders(root: Path) -> list[Path]:
    """The entry's ``seed-<n>`` folders, by number."""
    found = [p for p in root.iterdir() if SEED_FOLDER.fullmatch(p.name) and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name.partition("-")[2]))


def check_manifest_files(folder: Path, manifest: Manifest, report: Report) -> None:
    """Check that manifest and folder have the same files, byte for byte."""
    where = f"{folder.name}/manifest.json"
    folded: dict[str, str] = {}
    for path in manifest.files:
        if not safe_path(path):
            report.error("path", where, f"lists {path!r}, which is not a plain path below the seed")
            continue
        if path.casefold() in folded:
            report.error("name-collision", where, f"lists {path!r} and {folded[path.casefold()]!r}")
        folded[path.casefold()] = path
        if not known_seed_file(path) or path == "manifest.json":
            report.error("unknown-file", where, f"lists {path!r}, no file that the format has")
    for path in manifest.optional:
        if path not in manifest.files or not path.startswith("replies/"):
            report.error("optional", where, f"calls {path!r} optional; only replies/ files may be")
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    for path in sorted(present - set(manifest.files) - {"manifest.json"}):
        report.error("unsigned-file", f"{folder.name}/{path}", "is not in the manifest")
    for path in sorted(set(manifest.files) - present - set(manifest.optional)):
        report.error("missing-file", f"{folder.name}/{path}", "is in the manifest, but missing")
    for path in SEED_FILES[1:]:
        if path not in manifest.files:
            report.error("missing-file", where, f"does not list {path}, which every seed has")
    for path in sorted(present & set(manifest.files)):
        _check_digest(folder, path, manifest, report)


def _check_digest(folder: Path, path: str, manifest: Manifest, report: Report) -> None:
    check_digest(folder / path, f"{folder.name}/{path}", manifest.files[path], report)


def check_digest(file: Path, where: str, listed: FileRef, report: Report) -> None:
    """Check that a file has the listed size and SHA-256; a zstd file must be one valid frame."""
    size = file.stat().st_size
    if size != listed.bytes:
        report.error("size", where, f"has {size:,} bytes, but is listed with {listed.bytes:,}")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != listed.sha256:
        what = f"has the sha256 {found[:12]}…, but is listed with {listed.sha256[:12]}…"
        report.error("digest", where, what)
    if file.name.endswith(".zst"):
        try:
            read_frame(file)
        except Refused as error:
            report.error(error.code, where, error.what)
