"""A split of a card that declares its files: rows, filtered, drawn, made samples and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, overload

from cpt_bench.errors import CptBenchError
from cpt_bench.sources.checks import problem_of
from cpt_bench.sources.mapping import fits, group_of, pictures_of, sample_of
from cpt_bench.sources.pictures import check_picture
from cpt_bench.sources.rows import Row, read_rows, rows_of
from cpt_bench.suite import Sample, TaskCard
from cpt_bench.suite.columns import Files, SplitFiles, names_in
from cpt_bench.suite.origins import Draw

TODO = "Correct the row, or leave it out with source.where"


class Usable(NamedTuple):
    """A row that meets the card's conditions, with its sample's id and its group."""

    row: Row
    name: str
    group: str


def read_declared(card: TaskCard, split: str, asked_only: bool = False) -> list[Sample]:
    """The samples of a split in order: those of the card's ``draw``, else all.

    With ``asked_only`` the file of its gold is not read: what is asked, without the answers.

    Raises:
        CptBenchError: A file or column is missing, a row makes no sample, there are not as many as
            the card publishes, or an id occurs twice.
    """
    assert isinstance(card.source, Files) and card.folder is not None
    published, where = card.splits[split], f"task {card.name}, {split} split"
    usable = usable_rows(card, split, asked_only)
    chosen = usable if published.draw is None else drawn_rows(usable, published.draw, published.n)
    if len(chosen) != published.n:
        rule = "rows from this draw" if published.draw else "rows"
        todo = f"Set n: {len(chosen)}" if chosen else "Correct the files, or the conditions"
        if not chosen and usable:
            todo = f"Only {len(usable)} rows fit, so skip and n together may be no more than that"
        if len(chosen) > published.n:
            todo += f", or choose {published.n} of them by a rule: draw: {{seed: 0}}"
        raise CptBenchError(f"{len(chosen)} {rule}, not {published.n}", where=where, todo=todo)
    with _within(where):
        samples = [_sample(card, card.source, one, asked_only) for one in chosen]
    ids = [sample.id for sample in samples]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        todo = "Name a column in map.id that is different in every row, or leave map.id out"
        raise CptBenchError(f"the id {twice!r} occurs more than once", where=where, todo=todo)
    return samples


def usable_rows(card: TaskCard, split: str, asked_only: bool = False) -> list[Usable]:
    """All rows of a split's files that meet the card's conditions, in their order.

    Raises:
        CptBenchError: As :func:`read_declared`.
    """
    source = card.source
    assert isinstance(source, Files) and card.folder is not None
    where = f"task {card.name}, {split} split"
    # Rows of files that several splits share have one name, whichever split they end up in.
    prefix = f"{split}-" if split in source.splits else ""
    draw, out = card.splits[split].draw, []
    with _within(where):
        gold = None if asked_only else _gold(source, source.of(split), card.folder)
        for number, row in enumerate(rows_of(source, split, card.folder)):
            with _at(row):
                values = row.values
                name = _name(values, source, f"{prefix}{number}")
                if gold is not None:
                    if name not in gold:
                        raise CptBenchError(f"the gold has no row with the id {name!r}")
                    values = {**values, **gold[name]}
                if fits(values, source.where):
                    group = group_of(values, draw.by) if draw and draw.by else name
                    out.append(Usable(row._replace(values=values), name, group))
    return out


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Adds the task and split to an error's place."""
    try:
        yield
    except CptBenchError as error:
        place = f"{where}: {error.where}" if error.where else where
        raise CptBenchError(error.what, where=place, todo=error.todo) from None


@contextmanager
def _at(row: Row) -> Iterator[None]:
    """Adds a row's place to an error of its values."""
    try:
        yield
    except CptBenchError as error:
        if error.where:
            raise
        raise CptBenchError(error.what, where=row.where, todo=error.todo) from None


def _name(values: Mapping[str, Any], source: Files, default: str) -> str:
    template = source.map.id
    if not template:
        return default
    return group_of(values, template) if names_in(template) else template


def _gold(source: Files, part: SplitFiles | None, home: Path) -> dict[str, dict[str, Any]] | None:
    """Id to the row of a split's separate gold; None where gold is with the questions."""
    if part is None or not part.gold:
        return None
    file = home / source.root / part.gold
    if not file.exists():
        raise CptBenchError(
            "the gold of this split is not on this machine",
            where=file,
            todo="Its owner has it: they score and verify with their copy of the suite",
        )
    kind = {".jsonl": "jsonl", ".json": "json", ".csv": "csv"}.get(file.suffix, source.kind)
    rows = read_rows(kind, home / source.root, part.gold)
    return {_name(row.values, source, str(n)): row.values for n, row in enumerate(rows)}


def drawn_rows(usable: Sequence[Usable], draw: Draw, n: int) -> list[Usable]:
    """``n`` rows from rank ``skip`` on: by SHA-256 of ``seed`` NUL group, then of the id."""

    def rank(one: Usable) -> tuple[bytes, bytes]:
        return tuple(sha256(f"{draw.seed}\0{x}".encode()).digest() for x in (one.group, one.name))  # type: ignore[return-value]

    return sorted(usable, key=rank)[draw.skip : draw.skip + n]


def _sample(card: TaskCard, source: Files, one: Usable, asked_only: bool) -> Sample:
    assert card.folder is not None
    row, root = one.row, card.folder / source.root
    with _at(row):
        places = [
            part if isinstance(part, bytes) else _file(part, row.folder, root)
            for part in pictures_of(row.values, source.map)
        ]
        shown = PictureFiles(tuple(places))
        sample = sample_of(row.values, source.map, card.answer_kinds, one.name, shown, asked_only)
        if asked_only:
            return sample
        pictured = bool(source.map.images) and not source.no_picture
        where = f"{row.where}, {sample.id}"
        if problem := problem_of(sample, pictured, card.answer_kinds):
            raise CptBenchError(problem, where=where, todo=TODO)
        for place in places:
            check_picture(place, where, TODO)
        return sample


def _file(path: str, folder: Path, root: Path) -> Path:
    """The file of a picture, next to its table or below the root.

    Raises:
        CptBenchError: It is outside of both, or in neither.
    """
    if Path(path).is_absolute():
        raise CptBenchError(
            f"a picture is named by an absolute path ({path})",
            todo="Name it from the table's folder or from source.root, so that others can read it",
        )
    for above in dict.fromkeys((folder, root)):
        file = above / path
        if file.is_file():
            return file
    raise CptBenchError(
        f"no picture {path!r}", where="", todo=f"It is sought in {folder} and in {root}"
    )


class PictureFiles(Sequence[bytes]):
    """A sample's encoded pictures, read when they are accessed."""

    __slots__ = ("places",)

    def __init__(self, places: tuple[Path | bytes, ...]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> PictureFiles: ...
    def __getitem__(self, index: int | slice) -> bytes | PictureFiles:
        if isinstance(index, slice):
            return PictureFiles(self.places[index])
        place = self.places[index]
        return place if isinstance(place, bytes) else place.read_bytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    def __hash__(self) -> int:
        return hash(self.places)
