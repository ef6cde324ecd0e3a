"""The accuracy matrix: its names, its JSON form, its missing cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.errors import CptBenchError, shown

Array = npt.NDArray[np.float64]


class Matrix(NamedTuple):
    """An accuracy matrix with its names.

    Attributes:
        tasks: T task names in training order.
        accuracy: R, shape (T+1, T), NaN where a cell was not measured. Any linear unit.
        evaluated: ``all`` if every task is evaluated after every stage; ``seen`` if only the tasks
            learned so far are (cells above the diagonal then do not count as missing, and maxima
            are taken over the rows from the diagonal on).
    """

    tasks: tuple[str, ...]
    accuracy: Array
    evaluated: str = "all"

    def first_row(self, column: int) -> int:
        """The first row after row 0 in which the protocol evaluates this column's task."""
        return 1 if self.evaluated == "all" else column + 1


def rounded(value: float) -> float:
    """Round to twelve significant digits, so that the order of summation does not change JSON."""
    return float(f"{value:.12g}") + 0.0  # + 0.0 turns -0.0 into 0.0


def cell_name(tasks: Sequence[str], row: int, column: int) -> str:
    """A readable name for a cell: ``R[3][2]: gqa after stage 3 (vizwiz)``."""
    when = "by the base model" if row == 0 else f"after stage {row} ({tasks[row - 1]})"
    return f"R[{row}][{column + 1}]: {tasks[column]} {when}"


def matrix_from_json(data: Any, where: object = "matrix") -> Matrix:
    """Read a matrix from its JSON form.

    ``accuracy`` has T+1 rows of T cells, row 0 the base model (a matrix of T rows has no row 0);
    null is a missing cell. Rows of growing length, 1 to T, are read as ``evaluated: seen``.

    Raises:
        CptBenchError: The shape or a value is not valid; the message names it.
    """

    def refuse(what: str) -> CptBenchError:
        return CptBenchError(what, where=where)

    if not isinstance(data, dict) or not isinstance(data.get("accuracy"), list):
        raise refuse('not a matrix: give {"tasks": [...], "accuracy": [[...], ...]}')
    rows = data["accuracy"]
    if not rows or not all(isinstance(row, list) for row in rows):
        raise refuse("accuracy is not a list of rows")
    lengths = [len(row) for row in rows]
    width = max(lengths)
    growing = lengths[-width:] == list(range(1, width + 1)) and width > 1
    names = data.get("tasks") or [f"task{j + 1}" for j in range(width)]
    if not isinstance(names, list) or len({str(n) for n in names}) != len(names):
        raise refuse("tasks is not a list of different names")
    if len(names) != width:
        raise refuse(f"{len(names)} tasks but rows of up to {width} cells")
    if len(rows) not in (width, width + 1):
        raise refuse(
            f"{len(rows)} rows for {width} tasks; expected {width + 1}, row 0 the base model"
        )
    if not growing and set(lengths) != {width}:
        raise refuse(f"rows of {sorted(set(lengths))} cells; expected {width} in each")
    evaluated = data.get("evaluated", "seen" if growing else "all")
    if evaluated not in ("all", "seen"):
        raise refuse(f"evaluated is {evaluated!r}, not 'all' or 'seen'")
    accuracy = np.full((width + 1, width), np.nan)
    offset = width + 1 - len(rows)
    for t, row in enumerate(rows):
        for j, value in enumerate(row):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise refuse(f"row {t}, column {j + 1} is {value!r}, not a number")
            if not abs(value) < 1e300:  # isfinite() fails on whole numbers beyond a float's
                what = shown(value)
                raise refuse(f"row {t}, column {j + 1} is {what}, not a finite number")
            accuracy[t + offset, j] = value
    return Matrix(tuple(str(n) for n in names), accuracy, evaluated)


def matrix_to_json(matrix: Matrix) -> dict[str, Any]:
    """The JSON form of a matrix; missing cells are null."""
    rows = [[None if math.isnan(v) else rounded(float(v)) for v in row] for row in matrix.accuracy]
    return {"tasks": list(matrix.tasks), "evaluated": matrix.evaluated, "accuracy": rows}


def missing_cells(matrix: Matrix) -> Iterator[str]:
    """The names of cells that the protocol requires and the matrix lacks."""
    for t, row in enumerate(matrix.accuracy):
        for j, value in enumerate(row):
            expected = matrix.evaluated == "all" or t > j
            if expected and math.isnan(value):
                yield cell_name(matrix.tasks, t, j)
