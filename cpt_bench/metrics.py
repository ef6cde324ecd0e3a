"""From the accuracy matrix to the numbers a method is judged by; pure.

``R`` has T+1 rows and T columns: ``R[t][j]`` is the accuracy on task j after stage t, row 0 is the
base model. Each number comes with its passport: name, formula, sign, divisor, n, interval, source.
A number whose cells are not all there is None, and its passport names the missing cells; nothing is
averaged over what happens to be present.

Conventions differ from paper to paper; here every disputed one has its own name. Differences are
signed 'after minus before', so that forgetting is negative.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.errors import CptBenchError

Array = npt.NDArray[np.float64]
Cells = Sequence[tuple[int, int]]
"""(row, column) pairs of R, both from 0."""


class Matrix(NamedTuple):
    """An accuracy matrix with its names.

    Attributes:
        tasks: T task names in training order.
        accuracy: R, shape (T+1, T), NaN where a cell was not measured. Any linear unit.
        evaluated: ``all`` when every task is evaluated after every stage; ``seen`` when only the
            tasks learned so far are (cells above the diagonal are then no gaps, and maxima run
            over the rows from the diagonal on).
    """

    tasks: tuple[str, ...]
    accuracy: Array
    evaluated: str = "all"

    def first_row(self, column: int) -> int:
        """The first row after row 0 in which the protocol evaluates this column's task."""
        return 1 if self.evaluated == "all" else column + 1


class Metric(NamedTuple):
    """The definition of one number.

    Attributes:
        key: Its name in ``metrics.json``.
        formula: In the notation of this module.
        sign: What a large value means.
        source: Who defines it so.
        per_task: R of shape (..., T+1, T) and the matrix's names -> values of shape (..., m), whose
            mean (or sum over ``divisor``) is the number.
        cells: The cells it reads.
        divisor: What the sum is divided by; by default the number of terms.
    """

    key: str
    formula: str
    sign: str
    source: str
    per_task: Callable[[Array, Matrix], Array]
    cells: Callable[[Matrix], Cells]
    divisor: Callable[[int], int] | None = None


def _tasks(matrix: Matrix) -> range:
    return range(len(matrix.tasks))


def _last(matrix: Matrix) -> int:
    return len(matrix.tasks)


def _diagonal(r: Array, matrix: Matrix) -> Array:
    columns = np.arange(len(matrix.tasks))
    return r[..., columns + 1, columns]


def _drop_from_peak(
    start: Callable[[Matrix, int], int], stop: int, columns: int
) -> tuple[Callable[[Array, Matrix], Array], Callable[[Matrix], Cells]]:
    """R[T][j] - max over rows start..T+stop-1 of R[t][j], for the first T+columns tasks."""

    def per_task(r: Array, matrix: Matrix) -> Array:
        last = _last(matrix)
        terms = [
            r[..., last, j] - r[..., start(matrix, j) : last + stop, j].max(axis=-1)
            for j in range(last + columns)
        ]
        return np.stack(terms, axis=-1)

    def cells(matrix: Matrix) -> Cells:
        last = _last(matrix)
        rows = {j: {*range(start(matrix, j), last + stop), last} for j in range(last + columns)}
        return [(t, j) for j, needed in rows.items() for t in sorted(needed)]

    return per_task, cells


def _first_row(matrix: Matrix, column: int) -> int:
    return matrix.first_row(column)


def _row_zero(matrix: Matrix, column: int) -> int:
    return 0


_FM = _drop_from_peak(_first_row, 0, -1)
_FM_BASE = _drop_from_peak(_row_zero, 0, -1)
_FM_PAPER = _drop_from_peak(_first_row, 1, 0)

METRICS: tuple[Metric, ...] = (
    Metric(
        "AvgAcc", "mean_j R[T][j]", "higher is better", "Lopez-Paz & Ranzato 2017 (ACC)",
        lambda r, m: r[..., _last(m), :],
        lambda m: [(_last(m), j) for j in _tasks(m)],
    ),
    Metric(
        "BaseAcc", "mean_j R[0][j]", "where the run started", "row 0",
        lambda r, m: r[..., 0, :],
        lambda m: [(0, j) for j in _tasks(m)],
    ),
    Metric(
        "Learn", "mean_j R[j][j]", "higher is better: accuracy just after learning",
        "MCITlib (MFT)",
        _diagonal,
        lambda m: [(j + 1, j) for j in _tasks(m)],
    ),
    Metric(
        "FM", "mean_{j<T} (R[T][j] - max_{1<=t<T} R[t][j])", "negative = forgot",
        "Chaudhry et al. 2018, sign turned; with evaluated='seen' maxima start at t=j, as there",
        *_FM,
    ),
    Metric(
        "FM_base", "mean_{j<T} (R[T][j] - max_{0<=t<T} R[t][j])", "negative = forgot",
        "FM in which the base model's row may be the peak",
        *_FM_BASE,
    ),
    Metric(
        "FM_paper", "1/T sum_j (R[T][j] - max_{1<=t<=T} R[t][j])",
        "negative = forgot, never positive",
        "arXiv 2507.05386, divisor T",
        *_FM_PAPER,
    ),
    Metric(
        "FM_paper_T-1", "1/(T-1) sum_j (R[T][j] - max_{1<=t<=T} R[t][j])",
        "negative = forgot, never positive",
        "arXiv 2507.05386, divisor T-1 (the publication does not settle which)",
        *_FM_PAPER,
        lambda terms: terms - 1,
    ),
    Metric(
        "BWT", "mean_{j<T} (R[T][j] - R[j][j])", "negative = forgot, positive = later tasks helped",
        "Lopez-Paz & Ranzato 2017; also called FM_diag",
        lambda r, m: (r[..., _last(m), :] - _diagonal(r, m))[..., :-1],
        lambda m: [c for j in range(_last(m) - 1) for c in ((j + 1, j), (_last(m), j))],
    ),
    Metric(
        "FWT", "mean_{j>1} (R[j-1][j] - R[0][j])", "positive = earlier tasks helped",
        "Lopez-Paz & Ranzato 2017, with the base model as the baseline",
        lambda r, m: np.stack([r[..., j, j] - r[..., 0, j] for j in range(1, _last(m))], axis=-1)
        if _last(m) > 1 else r[..., 0, :0],
        lambda m: [c for j in range(1, _last(m)) for c in ((0, j), (j, j))],
    ),
    Metric(
        "Gain", "mean_j (R[T][j] - R[0][j])", "higher is better", "AvgAcc - BaseAcc",
        lambda r, m: r[..., _last(m), :] - r[..., 0, :],
        lambda m: [c for j in _tasks(m) for c in ((0, j), (_last(m), j))],
    ),
)  # fmt: skip


class Interval(NamedTuple):
    """A percentile interval over test samples; seeds and orders are another matter."""

    low: float
    high: float
    level: float = 0.95
    method: str = "paired bootstrap over test samples, stratified by task"


def evaluate(
    matrix: Matrix, samples: Sequence[int] | None = None, resampled: Array | None = None
) -> dict[str, dict[str, Any]]:
    """All metrics of one matrix, each with its passport.

    Args:
        matrix: The matrix.
        samples: Test samples of each task, for ``n``; None when unknown.
        resampled: R recomputed on bootstrap resamples, shape (B, T+1, T), for the intervals.

    Returns:
        Key to ``value`` (None when cells are missing), ``formula``, ``sign``, ``divisor``, ``n``,
        ``interval``, ``source`` and, where there are any, ``missing`` cells.
    """
    out = {}
    for metric in METRICS:
        needed = metric.cells(matrix)
        columns = sorted({j for _, j in needed})
        passport: dict[str, Any] = {
            "value": None,
            "formula": metric.formula,
            "sign": metric.sign,
            "divisor": None,
            "n": sum(samples[j] for j in columns) if samples is not None else None,
            "interval": None,
            "source": metric.source,
        }
        missing = [cell for cell in needed if math.isnan(matrix.accuracy[cell])]
        if missing:
            passport["missing"] = [cell_name(matrix.tasks, t, j) for t, j in missing]
        elif not needed:
            passport["missing"] = ["a second task: this is defined from two tasks on"]
        else:
            terms = metric.per_task(matrix.accuracy, matrix)
            divisor = metric.divisor(terms.shape[-1]) if metric.divisor else terms.shape[-1]
            if divisor < 1:
                passport["missing"] = ["a second task: this is defined from two tasks on"]
            else:
                passport["divisor"] = divisor
                passport["value"] = _round(float(terms.sum() / divisor))
                if resampled is not None:
                    draws = metric.per_task(resampled, matrix).sum(axis=-1) / divisor
                    passport["interval"] = interval(draws)._asdict()
        out[metric.key] = passport
    return out


def interval(draws: Array, level: float = 0.95) -> Interval:
    """The central ``level`` of bootstrap ``draws``."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(_round(float(low)), _round(float(high)), level)


def general_delta(
    before: Mapping[str, Array], after: Mapping[str, Array], draws: int
) -> dict[str, Any]:
    """General capability: score after minus before, per benchmark and their mean, paired.

    Args:
        before: Benchmark to per-sample scores of the base model, in [0, 1].
        after: The same samples after the last stage.
        draws: Bootstrap resamples.

    Returns:
        A passport for the mean, with one a benchmark under ``benchmarks``; in percentage points.
    """
    formula = "mean_b (G[T][b] - G[0][b])"
    parts, resampled = {}, []
    missing = sorted(set(before) ^ set(after))
    for name in [b for b in before if b in after]:
        difference = 100 * (after[name] - before[name])
        drawn = bootstrap_means(difference[None], draws, seed=name)[:, 0]
        resampled.append(drawn)
        parts[name] = {
            "value": _round(float(difference.mean())),
            "before": _round(float(100 * before[name].mean())),
            "after": _round(float(100 * after[name].mean())),
            "n": len(difference),
            "interval": interval(drawn)._asdict(),
        }
    whole = bool(parts) and not missing
    return {
        "value": _round(float(np.mean([p["value"] for p in parts.values()]))) if whole else None,
        "formula": formula,
        "sign": "negative = general capability was lost",
        "divisor": len(parts) if whole else None,
        "n": sum(p["n"] for p in parts.values()) if whole else None,
        "interval": interval(np.mean(resampled, axis=0))._asdict() if whole else None,
        "source": "TRACE (Wang et al. 2023), general-ability delta; paired by sample",
        **({"missing": missing or ["general benchmarks: none was measured"]} if not whole else {}),
        "benchmarks": parts,
    }


def bootstrap_means(scores: Array, draws: int, seed: str) -> Array:
    """Means of ``scores`` on resamples of its columns, drawn alike for every row.

    Args:
        scores: Shape (rows, n): one row a model, one column a test sample.
        draws: Number of resamples, B.
        seed: Names the stream of random numbers.

    Returns:
        Shape (B, rows).
    """
    n = scores.shape[1]
    parts = [block.astype(np.float64) @ scores.T for block in _resamples(seed, n, draws)]
    return np.asarray(np.concatenate(parts) / n, dtype=np.float64)


@functools.lru_cache(maxsize=16)
def _resamples(seed: str, n: int, draws: int) -> tuple[npt.NDArray[np.uint8], ...]:
    """How often each sample is drawn in each resample, in blocks of rows.

    Drawing them is most of the work (1 s for 2,000 resamples of 5,000), and every run of a suite
    asks for the same ones. No sample is ever drawn 256 times: the chance is below 1e-200.
    """
    rng = np.random.default_rng(list(seed.encode()))
    shares, block = np.full(n, 1 / n), 200
    sizes = [min(block, draws - start) for start in range(0, draws, block)]
    return tuple(rng.multinomial(n, shares, size=size).astype(np.uint8) for size in sizes)


def _round(value: float) -> float:
    """Twelve significant digits: sums in another order then give the same JSON."""
    return float(f"{value:.12g}") + 0.0  # + 0.0 turns -0.0 into 0.0


def cell_name(tasks: Sequence[str], row: int, column: int) -> str:
    """A cell as people say it: ``R[3][gqa] (task gqa after stage 3)``."""
    when = "by the base model" if row == 0 else f"after stage {row} ({tasks[row - 1]})"
    return f"R[{row}][{column + 1}]: {tasks[column]} {when}"


def matrix_from_json(data: Any, where: object = "matrix") -> Matrix:
    """Read a matrix from its JSON form.

    ``accuracy`` has T+1 rows of T cells, row 0 the base model (a matrix of T rows has no row 0);
    null is a missing cell. Rows of growing length, 1 to T, are read as ``evaluated: seen``.

    Raises:
        CptBenchError: The shape or a value is not that of a matrix; the line says which.
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
            if not math.isfinite(value):
                raise refuse(f"row {t}, column {j + 1} is {value}, not a finite number")
            accuracy[t + offset, j] = value
    return Matrix(tuple(str(n) for n in names), accuracy, evaluated)


def matrix_to_json(matrix: Matrix) -> dict[str, Any]:
    """The JSON form of a matrix; missing cells are null."""
    rows = [[None if math.isnan(v) else _round(float(v)) for v in row] for row in matrix.accuracy]
    return {"tasks": list(matrix.tasks), "evaluated": matrix.evaluated, "accuracy": rows}


def missing_cells(matrix: Matrix) -> Iterator[str]:
    """The names of cells the protocol calls for and the matrix lacks."""
    for t, row in enumerate(matrix.accuracy):
        for j, value in enumerate(row):
            expected = matrix.evaluated == "all" or t > j
            if expected and math.isnan(value):
                yield cell_name(matrix.tasks, t, j)
