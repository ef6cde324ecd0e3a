"""Published tables -> prepared splits, through ``datasets.load_dataset``.

The same call reads tables from the hub or from a folder in the hub's layout, so that offline tests
cover the code that runs. A table is accepted only if its columns, their types and its number of
rows match the card; the first table of a card that fits is used, and for each one before it the
reason for rejecting it is recorded.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from cpt_bench.environment import require_training
from cpt_bench.errors import CptBenchError
from cpt_bench.hub.snapshots import Tell
from cpt_bench.plugins import load as load_target
from cpt_bench.sources import cache
from cpt_bench.sources.checks import check_sample
from cpt_bench.sources.hub_map import by_path, mapped, named_columns
from cpt_bench.sources.mapping import group_of
from cpt_bench.sources.pictures import Repository, check_picture, encoded_bytes
from cpt_bench.sources.places import full, is_full, plainly_named
from cpt_bench.suite import Sample, TaskCard, prepared
from cpt_bench.suite.origins import Draw, Hub, Join, Table

Adapter = Callable[..., Sample | None]


class Unfit(Exception):  # noqa: N818 - one reason among several, turned into one error later
    """Why a table cannot be used.

    Args:
        reason: Why, in a sentence.
        todo: What a person can do about it, if that is known.
    """

    def __init__(self, reason: str, todo: str = "") -> None:
        super().__init__(reason)
        self.todo = todo


def prepare(
    card: TaskCard, split: str, origin: Path | None = None, tell: Tell = lambda line: None
) -> dict[str, Any]:
    """Fetch one split into the cache, unless it is already there.

    Args:
        card: The task; its source is the hub.
        split: ``train`` or ``test``.
        origin: A folder with ``<owner>/<name>`` folders laid out as on the hub; None: the hub.
        tell: Receives what is fetched, and how large it is.

    Returns:
        The content of the split's ``meta.json``.

    Raises:
        CptBenchError: No table of the card can be read and fits; the message gives each reason.
    """
    from cpt_bench.files import read_json

    if not isinstance(card.source, Hub) or split not in card.source.splits:
        raise CptBenchError(
            f"the card has no source for the {split} split", where=f"task {card.name}"
        )
    if prepared.is_prepared(card, split):
        cache.read(card, split)  # raises if it was changed afterwards
    else:
        scratch = prepared.folder(card, split).with_suffix(".building")
        try:
            _prepare(card, split, card.source, origin, scratch, tell)
        except OSError as error:
            if is_full(error):
                raise full(scratch.parent) from None
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    found: dict[str, Any] = read_json(prepared.folder(card, split) / "meta.json")
    return found


def _prepare(
    card: TaskCard, split: str, source: Hub, origin: Path | None, scratch: Path, tell: Tell
) -> None:
    wanted, passed, todo = source.splits[split], [], []
    for table in wanted.tables:
        try:
            columns = table.columns or wanted.columns or named_columns(source)
            rows, commit = open_table(table, columns, origin, scratch, tell)
            pictures = _open_join(table, wanted.join, origin, scratch, tell)
        except Unfit as reason:
            passed.append(f"{table.repo}: {reason}")
            todo += [reason.todo] if reason.todo else []
            continue
        home = Repository(table.repo, commit or table.revision, origin, split, _caches(scratch))
        samples = _samples(card, split, source, table, rows, pictures, home)
        facts = {
            "repo": table.repo,
            "configs": list(table.configs),
            "split": table.split,
            "revision": commit or table.revision,
            "local": origin is not None,
            "passed_over": passed,
            "datasets": importlib.import_module("datasets").__version__,
        }
        cache.write(card, split, samples, facts)
        return
    raise CptBenchError(
        f"no table can be used: {'; '.join(passed)}",
        where=f"task {card.name}, {split} split",
        todo="Correct the folder given with --from"
        if origin
        else f"{todo[0] if todo else 'Correct the card'}, or give a local copy with --from DIR",
    )


# ---------------------------------------------------------------------------------- tables


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


def _open_join(
    table: Table, join: Join | None, origin: Path | None, scratch: Path, tell: Tell
) -> tuple[Any, dict[str, int]] | None:
    """The table of pictures, and the row of each key in it."""
    if join is None:
        return None
    images = Table(repo=table.repo, revision=table.revision, configs=(join.config,),
                   split=join.split)  # fmt: skip
    columns = {join.key: "string", join.image: "image"}
    rows, _ = open_table(images, columns, origin, scratch, tell)
    return rows, {key: i for i, key in enumerate(rows[join.key])}


# ---------------------------------------------------------------------------------- samples


def _samples(
    card: TaskCard,
    split: str,
    source: Hub,
    table: Table,
    rows: Any,
    pictures: tuple[Any, dict[str, int]] | None,
    home: Repository,
) -> Iterator[Sample]:
    """The split's samples, in order; pictures are read only for the chosen rows."""
    adapter: Adapter = (
        load_target(source.target, card.folder)
        if source.map is None
        else mapped(card, source, source.map, rows, table, home)
    )
    wanted, place_of = source.splits[split], f"{table.repo}, split {table.split}"
    join = wanted.join

    def adapt(row: dict[str, Any], number: int, index: int) -> Sample | None:
        try:
            return adapter(row, index, split, **source.options)
        except CptBenchError as error:
            where = f"{place_of}, row {number}{_named(row)}"
            raise CptBenchError(error.what, where=where, todo=error.todo) from None
        except (KeyError, ValueError, IndexError, TypeError, AttributeError, SyntaxError) as error:
            raise CptBenchError(
                f"row {number}{_named(row)} makes no sample ({type(error).__name__}: {error})"[
                    :300
                ],
                where=place_of,
            ) from None

    columns = table.columns or wanted.columns
    named = [n for n, kind in columns.items() if "image" in kind and "string" in kind]
    published = card.splits[split]
    chosen: Iterator[tuple[int, int]] | None = None
    if published.draw is not None:
        known: list[tuple[str, int, int]] = []
        for number, row in enumerate(_without_pictures(rows)):
            sample = adapt(row, number, len(known))
            if sample is not None:
                name = sample.id
                if published.draw.by:
                    name = f"{group_of(row, published.draw.by)}\0{name}"
                known.append((name, number, len(known)))
        chosen = ((n, k) for _, n, k in drawn(known, published.draw, published.n))
    else:
        chosen = _in_order(rows, adapt)
    for number, index in chosen:
        row = {n: encoded_bytes(value, home.picture) for n, value in rows[number].items()}
        row |= {n: by_path(row[n], home.picture) for n in named if n in row}
        if join is not None and pictures is not None:
            images, places = pictures
            place = places.get(row[join.on])
            if place is None:
                raise CptBenchError(
                    f"row {number} names the picture {row[join.on]!r}, which is not in "
                    f"{join.config}",
                    where=place_of,
                )
            row["image"] = encoded_bytes(images[place][join.image], home.picture)
        sample = adapt(row, number, index)
        assert sample is not None
        check_sample(sample, wanted, card.answer_kinds, place_of)
        for picture in sample.images:
            check_picture(picture, f"{table.repo}, {sample.id}")
        yield sample


def _named(row: Mapping[str, Any]) -> str:
    """A row's own id, if it has one, for errors."""
    found = next((row[key] for key in ("id", "question_id") if row.get(key) is not None), None)
    return f" ({found})" if found is not None else ""


def _caches(scratch: Path) -> tuple[Path, ...]:
    """Folders into which ``datasets`` may have unpacked a picture with an absolute path."""
    from huggingface_hub import constants

    return scratch, Path(constants.HF_HOME)


def _in_order(rows: Any, adapt: Callable[..., Sample | None]) -> Iterator[tuple[int, int]]:
    """The number of each row that the adapter uses, with its index among those rows."""
    index = 0
    for number, row in enumerate(_without_pictures(rows)):
        if adapt(row, number, index) is not None:
            yield number, index
            index += 1


def drawn(known: list[tuple[str, int, int]], draw: Draw, n: int) -> list[tuple[str, int, int]]:
    """``n`` entries from rank ``skip`` on, ranked by SHA-256 of ``seed`` NUL ``id`` (entry 0)."""
    ranked = sorted(known, key=lambda entry: sha256(f"{draw.seed}\0{entry[0]}".encode()).digest())
    return ranked[draw.skip : draw.skip + n]


def _without_pictures(rows: Any) -> Iterator[dict[str, Any]]:
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
