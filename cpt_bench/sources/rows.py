"""Tables and folders of pictures -> rows, each with its place for errors."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.files import decoded, parse_jsonl, read_bytes, strictly_parsed
from cpt_bench.suite.columns import Files

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".ppm", ".tif", ".tiff"}
METADATA = ("metadata.csv", "metadata.jsonl")


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        values: Column to value.
        where: Its file and number, for errors.
        folder: Of the file: pictures may be named from here.
    """

    values: dict[str, Any]
    where: str
    folder: Path


def read_rows(kind: str, root: Path, name: str) -> Iterator[Row]:
    """The rows of a file, or of an image folder, below ``root``.

    Raises:
        CptBenchError: It is not there, or not of that kind.
    """
    place = root / name
    if not place.exists():
        here = sorted(p.name for p in place.parent.iterdir()) if place.parent.is_dir() else []
        todo = did_you_mean(place.name, here[:20]) if here else f"There is no {place.parent} either"
        raise CptBenchError("no such file", where=place, todo=todo)
    if kind != "imagefolder" and place.is_dir():
        raise CptBenchError("is a directory", where=place, todo=f"Name {kind} files in it")
    yield from _READERS[kind](place)


def _jsonl(file: Path) -> Iterator[Row]:
    for where, values in parse_jsonl(read_bytes(file), file):
        yield Row(values, where, file.parent)


def _json(file: Path) -> Iterator[Row]:
    try:
        rows = strictly_parsed(decoded(read_bytes(file), file))
    except ValueError as error:
        raise CptBenchError(f"not valid JSON ({error})", where=file) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        todo = "Give one array of objects, or use kind: jsonl for one object a line"
        raise CptBenchError("not an array of objects", where=file, todo=todo)
    for number, values in enumerate(rows):
        yield Row(values, f"{file}[{number}]", file.parent)


def _csv(file: Path) -> Iterator[Row]:
    text = decoded(read_bytes(file), file)
    tabs = "\t" in text.partition("\n")[0]
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, delimiter="\t" if tabs else ",", strict=True)
    try:
        names = reader.fieldnames or ()
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise CptBenchError(f"two columns are called {twice!r}", where=f"{file}:1")
        for values in reader:
            if None in values or None in values.values():
                what = f"has {'more' if None in values else 'fewer'} cells than the first line"
                raise CptBenchError(what, where=f"{file}:{reader.line_num}")
            yield Row(dict(values), f"{file}:{reader.line_num}", file.parent)
    except csv.Error as error:
        raise CptBenchError(f"not CSV ({error})", where=f"{file}:{reader.line_num}") from None


def _arrow(file: Path) -> Iterator[Row]:
    table = _table(file)
    number = 0
    for batch in table.to_batches(max_chunksize=64):
        for values in batch.to_pylist():
            yield Row(values, f"{file}, row {number}", file.parent)
            number += 1


def _table(file: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise CptBenchError(
            f"reading {file.name} needs {error.name}, which is not installed",
            where=file,
            todo="Install it with: pip install 'cptbench[train]', or give the table as JSON lines",
        ) from None
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file)
        with pa.memory_map(str(file)) as source:
            try:
                return pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CptBenchError(f"not a table that Arrow reads ({reason})", where=file) from None


def _imagefolder(folder: Path) -> Iterator[Row]:
    if not folder.is_dir():
        raise CptBenchError("is not a directory", where=folder, todo="Name a folder of pictures")
    listed = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if listed is not None:
        read = _csv if listed.suffix == ".csv" else _jsonl
        for row in read(listed):
            if "file_name" not in row.values:
                raise CptBenchError("no column 'file_name'", where=row.where)
            yield row._replace(values={**row.values, "image": row.values["file_name"]})
        return
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    if not files:
        raise CptBenchError("has no pictures", where=folder)
    for file in files:
        path = file.relative_to(folder)
        label = path.parent.as_posix() if path.parent != Path() else ""
        yield Row({"image": path.as_posix(), "label": label}, str(file), folder)


_READERS = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _arrow,
    "arrow": _arrow,
    "imagefolder": _imagefolder,
}


def rows_of(source: Files, split: str, home: Path) -> Iterator[Row]:
    """The rows of a split, one file after the other, before any filter.

    Raises:
        CptBenchError: The card names no files for it, or one cannot be read.
    """
    part = source.of(split)
    if part is None:
        known = f"There is: {', '.join(source.splits)}" if source.splits else "Give source.files"
        raise CptBenchError(f"source names no files for the {split} split", todo=known)
    for name in part.files:
        yield from read_rows(source.kind, home / source.root, name)
