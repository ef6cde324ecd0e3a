"""Published tables -> prepared splits.

The first table of a card that fits is used, and for each one before it the reason for rejecting it
is recorded.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.hub.snapshots import Tell
from cpt_bench.plugins import load as load_target
from cpt_bench.sources import cache
from cpt_bench.sources.checks import check_sample
from cpt_bench.sources.hub_map import by_path, mapped, named_columns
from cpt_bench.sources.hub_tables import Unfit, open_table, without_pictures
from cpt_bench.sources.mapping import group_of
from cpt_bench.sources.pictures import Repository, check_picture, encoded_bytes
from cpt_bench.sources.places import full, is_full
from cpt_bench.suite import Sample, TaskCard, prepared
from cpt_bench.suite.origins import Draw, Hub, Join, Table

Adapter = Callable[..., Sample | None]


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
        for number, row in enumerate(without_pictures(rows)):
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
        check_sample(sample, wanted, card.answer_kinds, place_of, source.map)
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
    for number, row in enumerate(without_pictures(rows)):
        if adapt(row, number, index) is not None:
            yield number, index
            index += 1


def drawn(known: list[tuple[str, int, int]], draw: Draw, n: int) -> list[tuple[str, int, int]]:
    """``n`` entries from rank ``skip`` on, ranked by SHA-256 of ``seed`` NUL ``id`` (entry 0)."""
    ranked = sorted(known, key=lambda entry: sha256(f"{draw.seed}\0{entry[0]}".encode()).digest())
    return ranked[draw.skip : draw.skip + n]
