"""Tables of the hub, through ``datasets.load_dataset``.

The same call reads tables from the hub or from a folder in the hub's layout, so that offline tests
cover the code that runs. A table is accepted only if its columns, their types and its number of
rows match the card.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cpt_bench.environment import require_training
from cpt_bench.errors import CptBenchError
from cpt_bench.hub.snapshots import Tell
from cpt_bench.sources.places import full, is_full, plainly_named
from cpt_bench.suite.origins import Table


class Unfit(Exception):  # noqa: N818 - one reason among several, turned into one error later
    """Why a table cannot be used.

    Args:
        reason: Why, in a sentence.
        todo: What a person can do about it, if that is known.
    """

    def __init__(self, reason: str, todo: str = "") -> None:
        super().__init__(reason)
        self.todo = todo


def open_table(
    table: Table,
    columns: Mapping[str, str],
    origin: Path | None,
    scratch: Path | None = None,
    tell: Tell = lambda line: None,
) -> tuple[Any, str | None]:
    """A published table, with its pictures still encoded, checked against the card.

    Returns:
        Its rows, and the commit that they are from; None for a folder.

    Raises:
        Unfit: It cannot be read, or its columns, types or number of rows differ.
    """
    from datasets import concatenate_datasets

    commit, parts = table.revision, []
    for config in table.configs or (None,):
        if origin is None:
            part, commit = fetched(table.repo, config, table.split, commit, scratch, tell)
        else:
            part = load(table.repo, config, table.split, commit, origin, scratch)
        parts.append(part)
    for part, config in zip(parts, table.configs or (None,), strict=True):
        _check_columns(part, columns, f"config {config}: " if len(parts) > 1 else "")
    parts = [encoded(part.select_columns(list(columns))) for part in parts]
    whole = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    if table.rows is not None and len(whole) != table.rows:
        raise Unfit(f"split {table.split} has {len(whole)} rows, not {table.rows}")
    return whole, commit


def load(
    repo: str,
    config: str | None,
    split: str,
    revision: str | None,
    origin: Path | None,
    scratch: Path | None = None,
) -> Any:
    """Call ``load_dataset(place, config, split=..., revision=...)``, from the hub or a folder."""
    require_training()
    from datasets import load_dataset

    place = repo if origin is None else str(plainly_named(origin / repo))
    if origin is not None and not (origin / repo).is_dir():
        raise Unfit(f"no folder {origin / repo}")
    options = {"cache_dir": str(scratch)} if scratch else {}
    with _reasons(scratch):
        return load_dataset(place, config, split=split, revision=revision, **options)


def fetched(
    repo: str,
    config: str | None,
    split: str,
    revision: str | None,
    scratch: Path | None,
    tell: Tell,
) -> tuple[Any, str]:
    """The rows of a split on the hub, and their commit.

    Raises:
        Unfit: The hub refuses or is away, or what it has cannot be read.
    """
    require_training()
    from cpt_bench.hub.tables import fetch_split

    with _reasons(scratch):
        try:
            rows = fetch_split(repo, config, split, revision, scratch, tell)
        except CptBenchError as error:
            raise Unfit(error.what, error.todo) from error
    return rows.rows, rows.commit


@contextlib.contextmanager
def _reasons(scratch: Path | None) -> Iterator[None]:
    """What stops a table from being used as :class:`Unfit`; a full disk as its own line."""
    try:
        yield
    except (CptBenchError, Unfit):
        raise
    except Exception as error:
        if is_full(error):
            raise full(scratch or Path(datasets_cache())) from None
        # Unknown configs and splits, an unreachable hub, a repository that is gone or gated, files
        # of different shapes: a reason not to use this table. Anything else is a mistake of ours.
        home = type(error).__module__.partition(".")[0]
        if home in _THEIRS or isinstance(error, ValueError | OSError | KeyError | RuntimeError):
            raise Unfit(_reason(error)) from None
        raise


def datasets_cache() -> str:
    """Where ``datasets`` writes by default."""
    from datasets import config

    return str(config.HF_DATASETS_CACHE)


_THEIRS = ("datasets", "huggingface_hub", "httpx", "httpx2", "requests", "pyarrow", "fsspec")


def _reason(error: BaseException) -> str:
    """An error's own words and those of its first cause, on one line."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    named = [error] if first is error else [error, first]
    return ", caused by ".join(
        f"{type(e).__name__}: {' '.join(str(e).split())}"[:400] for e in named
    )


def type_name(feature: Any) -> str:
    """A column's type in the words of a card: ``string``, ``int``, ``list<image>`` ..."""
    kind = type(feature).__name__
    if kind == "Image":
        return "image"
    if kind in ("List", "LargeList", "Sequence"):
        return f"list<{type_name(feature.feature)}>"
    if isinstance(feature, list):
        return f"list<{type_name(feature[0])}>"
    if isinstance(feature, Mapping):
        return "struct"
    dtype = str(getattr(feature, "dtype", kind))
    for stem, name in (("int", "int"), ("uint", "int"), ("large_string", "string"),
                       ("float", "float")):  # fmt: skip
        if dtype.startswith(stem):
            return name
    return dtype


def _check_columns(rows: Any, columns: Mapping[str, str], where: str) -> None:
    there = rows.features
    for column, wanted in columns.items():
        if column not in there:
            raise Unfit(f"{where}no column {column!r} (there is: {', '.join(there)})")
        found = type_name(there[column])
        if wanted and found not in wanted.split("|"):
            raise Unfit(f"{where}column {column!r} is {found}, not {wanted}")


def encoded(rows: Any) -> Any:
    """The table with its pictures as encoded bytes; they are decoded only where needed."""
    from datasets import Image, List

    for column, feature in rows.features.items():
        name = type_name(feature)
        if name == "image":
            rows = rows.cast_column(column, Image(decode=False))
        elif name == "list<image>":
            rows = rows.cast_column(column, List(Image(decode=False)))
    return rows


def without_pictures(rows: Any) -> Iterator[dict[str, Any]]:
    """The rows with an empty value for each picture: fast, for choosing among the rows."""
    types = {name: type_name(feature) for name, feature in rows.features.items()}
    images = [name for name, kind in types.items() if kind in ("image", "list<image>")]
    there = {name: rows.data.column(name).is_valid().to_pylist() for name in images}
    words = rows.remove_columns(images)
    for number in range(len(rows)):
        # A table that has only pictures has no other columns to iterate over.
        row = dict(words[number]) if words.column_names else {}
        for name in images:
            blank: Any = b"" if types[name] == "image" else []
            row[name] = blank if there[name][number] else None
        yield row
