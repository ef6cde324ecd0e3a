"""Rows of a published table -> samples, as a card's ``map`` declares it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cpt_bench.sources.mapping import fits, pictures_of, sample_of
from cpt_bench.sources.pictures import Repository
from cpt_bench.suite import Sample, TaskCard
from cpt_bench.suite.columns import Columns
from cpt_bench.suite.origins import Hub, Table


def named_columns(source: Hub) -> dict[str, str]:
    """The columns that a map and its conditions name, of whatever type."""
    assert source.map is not None
    named = [*source.map.columns(), *source.where]
    return dict.fromkeys((name.partition(".")[0] for name in named), "")


def mapped(
    card: TaskCard, source: Hub, columns: Columns, rows: Any, table: Table, home: Repository
) -> Callable[..., Sample | None]:
    """The adapter that a card's ``map`` declares; columns of classes are read by their names."""
    classes = {
        name: tuple(feature.names)
        for name, feature in rows.features.items()
        if type(feature).__name__ == "ClassLabel" and name not in columns.labels
    }
    known = columns.model_copy(update={"labels": {**classes, **columns.labels}})

    def adapt(row: dict[str, Any], index: int, split: str) -> Sample | None:
        if not fits(row, source.where):
            return None
        parts = pictures_of(row, known)
        images = [part if isinstance(part, bytes) else home.picture(part) for part in parts]
        return sample_of(row, known, card.answer_kinds, f"{table.split}-{index}", images)

    return adapt


def by_path(value: Any, picture: Callable[[str], bytes]) -> Any:
    """The pictures that a column of text names."""
    if isinstance(value, list):
        return [by_path(item, picture) for item in value]
    return picture(value) if isinstance(value, str) and value else value
