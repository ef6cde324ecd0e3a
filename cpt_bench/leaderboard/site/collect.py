"""From folders of entries to rows: each is verified, and only recomputed numbers are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, ValidationError, field_validator

from cpt_bench.errors import CptBenchError, explain
from cpt_bench.leaderboard.changed import find_entries
from cpt_bench.leaderboard.entry import Strict
from cpt_bench.leaderboard.findings import Refused
from cpt_bench.leaderboard.stats import Mean, mean_of, ranks
from cpt_bench.leaderboard.strict import read_yaml
from cpt_bench.leaderboard.verify import Verified, verify
from cpt_bench.metrics.intervals import welch_interval

RANKED_BY = "AvgAcc"
GAP = "GapToJoint"


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        id: Unique: the entry's place below ``leaderboards/``.
        suite: With its variant and version: ``nano 1.0``, ``cpt7@mini 1.0``.
        division: ``closed``, ``open``, ``joint`` or ``reported``.
        name: The method.
        model: The base model.
        lane: See :class:`cpt_bench.leaderboard.entry.Entry`.
        badge: ``reproduced``, ``rescored``, ``unverifiable`` or ``reported``.
        date: Of the entry.
        authors: Whose it is.
        seeds: How many.
        style: How the final model answers.
        privileges: Those used, as words.
        metrics: Key to mean over seeds, half-width of the 95 % t-interval (None for one seed).
        rank: Best and worst place by :data:`RANKED_BY` within suite, division and model.
        tasks: Columns of the matrix; general benchmarks after them.
        matrix: Mean over seeds, (T+1) x (T + general), None where not measured.
        superseded: The entry that corrects it, if one does.
        bound: The joint entry that :data:`GAP` is to; empty where there is none.
        notes: In words.
        link: Of a reported row, its source.
        verified: What the entry's page is made from; None for a reported row.
    """

    id: str
    suite: str
    division: str
    name: str
    model: str
    lane: str
    badge: str
    date: str
    authors: tuple[str, ...]
    seeds: int
    style: str
    privileges: tuple[str, ...]
    metrics: dict[str, Mean]
    rank: tuple[int, int] | None = None
    tasks: tuple[str, ...] = ()
    general: tuple[str, ...] = ()
    matrix: tuple[tuple[float | None, ...], ...] = ()
    superseded: str = ""
    bound: str = ""
    notes: str = ""
    link: str = ""
    verified: Verified | None = None


class Board(NamedTuple):
    """All that is published, and what was left out with the reason."""

    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...] = ()


class ReportedRow(Strict):
    """A row of somebody's table."""

    name: str = Field(max_length=80)
    model: str = Field(max_length=120)
    seeds: int = Field(ge=1)
    metrics: dict[str, float]
    notes: str = Field(default="", max_length=1000)


class Reported(Strict):
    """``leaderboards/<suite>/reported.yaml``: a publication's numbers, not recomputable."""

    suite: str
    source: str
    link: str = Field(pattern=r"^https://")
    date: str
    authors: tuple[str, ...]
    rows: tuple[ReportedRow, ...]

    @field_validator("authors", "rows", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def collect(
    boards: Path | Sequence[Path],
    suite_spec: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Board:
    """Verify every entry below ``boards`` and read every ``reported.yaml``.

    An entry that lies at the same place on two boards is shown once, from the first of them.

    Raises:
        CptBenchError: A ``reported.yaml`` is broken, or there is nothing to show.
    """
    places = [boards] if isinstance(boards, Path) else list(boards)
    published = [place for place in places if (place / "RULES.md").is_file()]
    rows: dict[str, Row] = {}
    left_out = []
    for folder in find_entries(places):
        done = verify(folder, suite_spec, boards=published)
        tell(f"{done.report.verdict}: {folder.name}")
        place, why = _placed(folder.absolute(), done)
        if done.entry is None or done.report.errors:
            why = done.report.errors[0].line() if done.report.errors else "cannot be read"
        if why:
            left_out.append((place, why))
        elif place not in rows:
            rows[place] = row_of(done, place)
    found = list(rows.values())
    for board in places:
        for file in sorted(board.glob("*/reported.yaml")):
            found += _reported(file)
    if not found and not left_out:
        where = ", ".join(str(place.absolute()) for place in places)
        todo = "A run folder becomes an entry by: cptbench submit RUN …"
        raise CptBenchError("no entry here", where=where, todo=todo)
    shown = {(row.suite, row.id): row for row in reversed(found)}
    return Board(tuple(ranked(with_gaps(_superseded([*shown.values()])))), tuple(left_out))


def _placed(folder: Path, done: Verified) -> tuple[str, str]:
    """Where an entry lies on its board, and in words why that is no place for it."""
    place = "/".join(folder.parts[-4:])
    if done.entry is not None and place != done.entry.place().as_posix():
        return place, f"error: place: belongs in {done.entry.place().as_posix()} of a board"
    return place, ""


def row_of(done: Verified, place: str) -> Row:
    """A verified entry as a row; numbers that were not recomputed are not shown."""
    entry = done.entry
    assert entry is not None
    scored = [seed.scores for seed in done.seeds.values() if seed.scores is not None]
    metrics = {}
    for key in scored[0].metrics if scored else ():
        values = [s.metrics[key]["value"] for s in scored]
        if all(v is not None for v in values):
            metrics[key] = mean_of(values)
    verdict = done.report.verdict
    lifted = any(r.lifts for r in done.reproductions)
    badge = "unverifiable" if verdict != "verified" else "reproduced" if lifted else "rescored"
    tasks, general, matrix = _matrix(scored)
    return Row(
        id=place,
        suite=f"{entry.suite.label} {entry.suite.version}",
        division=entry.division,
        name=entry.name,
        model=entry.model.name,
        lane=entry.lane,
        badge=badge,
        date=entry.date,
        authors=entry.authors,
        seeds=len(entry.seeds),
        style=entry.response_style,
        privileges=_privileges(entry.privileges, entry.extra_data),
        metrics=metrics,
        tasks=tasks,
        general=general,
        matrix=matrix,
        notes=entry.notes,
        verified=done,
    )


def _matrix(scored: list[Any]) -> tuple[tuple[str, ...], tuple[str, ...], Any]:
    if not scored:
        return (), (), ()
    orders = {s.matrix.tasks for s in scored}
    if len(orders) > 1:
        return (), (), ()  # seeds in different orders have no mean matrix
    docs = [s.matrix_json() for s in scored]
    parts = [np.array(_joined(doc), dtype=float) for doc in docs]
    mean = np.mean(parts, axis=0)
    rows = tuple(tuple(None if np.isnan(v) else round(float(v), 2) for v in row) for row in mean)
    return scored[0].matrix.tasks, scored[0].general, rows


def _joined(doc: dict[str, Any]) -> list[list[float]]:
    general = doc["general"]["accuracy"] or [[] for _ in doc["accuracy"]]
    return [
        [float("nan") if v is None else v for v in (*row, *extra)]
        for row, extra in zip(doc["accuracy"], general, strict=True)
    ]


def _privileges(declared: dict[str, Any], extra_data: str) -> tuple[str, ...]:
    words = []
    for name, value in declared.items():
        if value:
            shown = name.replace("_", " ")
            words.append(shown if value is True else f"{shown}: {value}")
    return (*words, *(["extra data"] if extra_data else []))


def _reported(file: Path) -> list[Row]:
    try:
        table = Reported.model_validate(read_yaml(file))
    except Refused as error:
        raise CptBenchError(error.what, where=file) from None
    except ValidationError as error:
        raise CptBenchError(explain(error), where=file, todo="Correct the file") from None
    return [
        Row(
            id=f"{table.suite}/reported/{number}",
            suite=table.suite,
            division="reported",
            name=row.name,
            model=row.model,
            lane="publication",
            badge="reported",
            date=table.date,
            authors=table.authors,
            seeds=row.seeds,
            style="",
            privileges=(),
            metrics={key: Mean(value, None, None, 1) for key, value in row.metrics.items()},
            notes=f"{row.notes} Source: {table.source}".strip(),
            link=table.link,
        )
        for number, row in enumerate(table.rows)
    ]


def _superseded(rows: list[Row]) -> list[Row]:
    """Mark the entries that a later one of the same suite and division corrects."""
    by = {}
    for row in rows:
        entry = row.verified.entry if row.verified else None
        if entry is not None and entry.supersedes:
            by[(row.suite, row.division, entry.supersedes)] = row.id
    return [
        row._replace(superseded=by.get((row.suite, row.division, Path(row.id).name), ""))
        for row in rows
    ]


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Rows with their places: within a suite, division and base model, by mean AvgAcc.

    Ties are ranges of places. Numbers of different base models say nothing about methods.

    One rule for who takes part: recomputed here, not superseded, two seeds or more. The upper bound
    takes no place: it stands above them.
    """
    rows = [row._replace(rank=None) for row in rows]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if stands(row) and row.division != "joint" and RANKED_BY in row.metrics:
            groups.setdefault((row.suite, row.division, _base(row) or row.model), []).append(i)
    for members in groups.values():
        places = ranks([rows[i].metrics[RANKED_BY] for i in members])
        for i, place in zip(members, places, strict=True):
            rows[i] = rows[i]._replace(rank=place)
    best = {"joint": 0, "closed": 1, "open": 2, "reported": 3}
    return sorted(
        rows,
        key=lambda r: (
            r.suite,
            best[r.division],
            -(r.metrics[RANKED_BY].mean if RANKED_BY in r.metrics else -1e9),
            r.id,
        ),
    )


# ------------------------------------------------------------------------------- the upper bound


def stands(row: Row) -> bool:
    """Whether a row's numbers were recomputed here and no later entry corrects them."""
    return row.badge in ("rescored", "reproduced") and not row.superseded


def with_gaps(rows: list[Row]) -> list[Row]:
    """Rows with ``GapToJoint``: AvgAcc minus that of the joint entry of the same suite and base.

    Where there are several joint entries, the highest is the bound.
    """
    out = []
    for row in rows:
        rivals = [
            other
            for other in rows
            if other.division == "joint" and stands(other) and RANKED_BY in other.metrics
            and (other.suite, _base(other)) == (row.suite, _base(row))
        ]  # fmt: skip
        if not rivals or row.division in ("joint", "reported") or RANKED_BY not in row.metrics:
            out.append(row)
            continue
        bound = max(rivals, key=lambda other: (other.metrics[RANKED_BY].mean, other.id))
        metrics = {**row.metrics, GAP: gap(row, bound)}
        out.append(row._replace(metrics=metrics, bound=bound.id))
    return out


def _base(row: Row) -> str:
    entry = row.verified.entry if row.verified else None
    return entry.model.weights if entry else ""


def by_seed(row: Row) -> dict[int, float]:
    """Seed to AvgAcc, of the seeds that have one."""
    seeds = row.verified.seeds if row.verified else {}
    found = {n: s.scores.metrics[RANKED_BY]["value"] for n, s in seeds.items() if s.scores}
    return {n: value for n, value in found.items() if value is not None}


def gap(row: Row, bound: Row) -> Mean:
    """The difference of two rows' AvgAcc: paired by seed where both have the same seeds.

    Else its interval is Welch's, as in ``cptbench compare``.
    """
    mine, theirs = by_seed(row), by_seed(bound)
    if mine and mine.keys() == theirs.keys():
        return mean_of([mine[n] - theirs[n] for n in sorted(mine)])
    a, b = row.metrics[RANKED_BY], bound.metrics[RANKED_BY]
    interval = welch_interval([*mine.values()], [*theirs.values()], "seeds")
    half = None if interval is None else (interval.high - interval.low) / 2
    return Mean(a.mean - b.mean, half, None, min(a.n, b.n))
