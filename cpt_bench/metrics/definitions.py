"""The definitions of all metrics: each convention in use has its own name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cpt_bench.metrics.matrix import Array, Matrix

Cells = Sequence[tuple[int, int]]
"""(row, column) pairs of R, both from 0."""


class Metric(NamedTuple):
    """The definition of one number.

    Attributes:
        key: Its name in ``metrics.json``.
        title: Its name in words.
        formula: Its formula, in the notation of this package.
        sign: The meaning of a large value.
        source: The publication with this definition.
        per_task: R of shape (..., T+1, T) and the matrix's names -> values of shape (..., m), whose
            mean (or sum divided by ``divisor``) is the number.
        cells: The cells that it reads.
        divisor: What the sum is divided by; by default the number of terms.
        peak: For a drop from a peak: the rows among which a column's peak is found.
    """

    key: str
    title: str
    formula: str
    sign: str
    source: str
    per_task: Callable[[Array, Matrix], Array]
    cells: Callable[[Matrix], Cells]
    divisor: Callable[[int], int] | None = None
    peak: Callable[[Matrix, int], range] | None = None

    def divide(self, terms: Array) -> Array:
        """The number(s) from the terms, shape (..., m) -> (...)."""
        count = terms.shape[-1]
        return np.asarray(terms.sum(axis=-1) / (self.divisor(count) if self.divisor else count))

    def number(self, r: Array, matrix: Matrix) -> Array:
        """R of shape (..., T+1, T) -> the number, shape (...)."""
        return self.divide(self.per_task(r, matrix))


def _tasks(matrix: Matrix) -> range:
    return range(len(matrix.tasks))


def _last(matrix: Matrix) -> int:
    return len(matrix.tasks)


def _diagonal(r: Array, matrix: Matrix) -> Array:
    columns = np.arange(len(matrix.tasks))
    return r[..., columns + 1, columns]


def _since_learned(r: Array, matrix: Matrix) -> Array:
    return np.asarray(r[..., _last(matrix), :] - _diagonal(r, matrix))


def _since_learned_cells(columns: int) -> Callable[[Matrix], Cells]:
    def cells(matrix: Matrix) -> Cells:
        last = _last(matrix)
        return [c for j in range(last + columns) for c in ((j + 1, j), (last, j))]

    return cells


class _Drop(NamedTuple):
    """R[T][j] - max over rows start..T+stop-1 of R[t][j], for the first T+columns tasks."""

    start: Callable[[Matrix, int], int]
    stop: int
    columns: int
    sign: int = 1

    def peak(self, matrix: Matrix, column: int) -> range:
        if column >= _last(matrix) + self.columns:
            return range(0)
        return range(self.start(matrix, column), _last(matrix) + self.stop)

    def per_task(self, r: Array, matrix: Matrix) -> Array:
        last, terms = _last(matrix), []
        for j in range(last + self.columns):
            rows = self.peak(matrix, j)
            terms.append(r[..., last, j] - r[..., rows.start : rows.stop, j].max(axis=-1))
        return self.sign * np.stack(terms, axis=-1) if terms else r[..., 0, :0]

    def cells(self, matrix: Matrix) -> Cells:
        last = _last(matrix)
        return [
            (t, j)
            for j in range(last + self.columns)
            for t in sorted({*self.peak(matrix, j), last})
        ]


def _first_row(matrix: Matrix, column: int) -> int:
    return matrix.first_row(column)


def _row_zero(matrix: Matrix, column: int) -> int:
    return 0


def _learned(matrix: Matrix, column: int) -> int:
    return column + 1


_FM = _Drop(_first_row, 0, -1)
_FM_BASE = _Drop(_row_zero, 0, -1)
_FM_SEEN = _Drop(_learned, 0, -1)
_FM_PAPER = _Drop(_first_row, 1, 0)
_FORGETTING = _FM_SEEN._replace(sign=-1)
_FORGETTING_MAX = _Drop(_learned, 1, -1, sign=-1)


def _seen_average(r: Array, matrix: Matrix) -> Array:
    """One value per stage: the mean accuracy over the tasks seen so far."""
    return np.stack([r[..., t, :t].mean(axis=-1) for t in range(1, _last(matrix) + 1)], axis=-1)


def _pairs(matrix: Matrix) -> list[tuple[int, int]]:
    """(row, column) below the diagonal: every later stage of every task."""
    return [(t, j) for t in range(2, _last(matrix) + 1) for j in range(t - 1)]


def _of_pairs(before: Callable[[int, int], int]) -> Callable[[Array, Matrix], Array]:
    def per_task(r: Array, matrix: Matrix) -> Array:
        terms = [r[..., t, j] - r[..., before(t, j), j] for t, j in _pairs(matrix)]
        return np.stack(terms, axis=-1) if terms else r[..., 0, :0]

    return per_task


def _transfer(r: Array, matrix: Matrix) -> Array:
    terms = [r[..., j, j] - r[..., 0, j] for j in range(1, _last(matrix))]
    return np.stack(terms, axis=-1) if terms else r[..., 0, :0]


def _just_learned(r: Array, matrix: Matrix) -> Array:
    """What each task's own stage did to it: R[j][j] - R[j-1][j]."""
    columns = np.arange(len(matrix.tasks))
    return np.asarray(r[..., columns + 1, columns] - r[..., columns, columns])


def _as_many_as_tasks(terms: int) -> int:
    """T, for a sum over the T-1 tasks after the first."""
    return terms + 1


_GEM = "Lopez-Paz & Ranzato 2017"
_RWALK = "Chaudhry et al. 2018 (RWalk)"
_FORGOT = "negative = forgot"
_BOTH = "negative = forgot, positive = later tasks helped"
_TURNED = "positive = forgot (as published; FM's sign is the other)"

METRICS: tuple[Metric, ...] = (
    Metric(
        "AvgAcc", "average accuracy", "mean_j R[T][j]", "higher is better", f"{_GEM} (ACC)",
        lambda r, m: r[..., _last(m), :],
        lambda m: [(_last(m), j) for j in _tasks(m)],
    ),
    Metric(
        "BaseAcc", "the base model's accuracy", "mean_j R[0][j]", "where the run started", "row 0",
        lambda r, m: r[..., 0, :],
        lambda m: [(0, j) for j in _tasks(m)],
    ),
    Metric(
        "Learn", "accuracy just after learning", "mean_j R[j][j]",
        "higher is better: accuracy just after learning", "MCITlib (MFT)",
        _diagonal,
        lambda m: [(j + 1, j) for j in _tasks(m)],
    ),
    Metric(
        "MAA", "mean average accuracy", "mean_t mean_{j<=t} R[t][j]", "higher is better",
        "average incremental accuracy (Rebuffi et al. 2017); MCITlib (MAA)",
        _seen_average,
        lambda m: [(t, j) for t in range(1, _last(m) + 1) for j in range(t)],
    ),
    Metric(
        "FM", "forgetting from the peak", "mean_{j<T} (R[T][j] - max_{1<=t<T} R[t][j])", _FORGOT,
        f"{_RWALK}, sign turned; with evaluated='seen' maxima start at t=j, as there",
        _FM.per_task, _FM.cells, peak=_FM.peak,
    ),
    Metric(
        "FM_base", "forgetting, the base among the peaks",
        "mean_{j<T} (R[T][j] - max_{0<=t<T} R[t][j])", _FORGOT,
        "FM in which the base model's row may be the peak",
        _FM_BASE.per_task, _FM_BASE.cells, peak=_FM_BASE.peak,
    ),
    Metric(
        "FM_seen", "forgetting, peaks since learned", "mean_{j<T} (R[T][j] - max_{j<=t<T} R[t][j])",
        _FORGOT, f"{_RWALK}, sign turned: rows before the task was trained are no peaks",
        _FM_SEEN.per_task, _FM_SEEN.cells, peak=_FM_SEEN.peak,
    ),
    Metric(
        "FM_paper", "forgetting of arXiv 2507.05386, over T",
        "1/T sum_j (R[T][j] - max_{1<=t<=T} R[t][j])", "negative = forgot, never positive",
        "arXiv 2507.05386, divisor T",
        _FM_PAPER.per_task, _FM_PAPER.cells, peak=_FM_PAPER.peak,
    ),
    Metric(
        "FM_paper_T-1", "forgetting of arXiv 2507.05386, over T-1",
        "1/(T-1) sum_j (R[T][j] - max_{1<=t<=T} R[t][j])", "negative = forgot, never positive",
        "arXiv 2507.05386, divisor T-1 (the publication does not settle which)",
        _FM_PAPER.per_task, _FM_PAPER.cells, lambda terms: terms - 1, _FM_PAPER.peak,
    ),
    Metric(
        "BWT", "backward transfer", "mean_{j<T} (R[T][j] - R[j][j])", _BOTH,
        f"{_GEM}; also called FM_diag",
        lambda r, m: _since_learned(r, m)[..., :-1],
        _since_learned_cells(-1),
    ),
    Metric(
        "BWT_T", "backward transfer over T", "1/T sum_j (R[T][j] - R[j][j])", _BOTH,
        "BWT with the last task's 0 in the mean, as code that averages over all tasks does",
        _since_learned,
        _since_learned_cells(0),
    ),
    Metric(
        "BWT_all", "backward transfer, all stages",
        "2/(T(T-1)) sum_{t>=2} sum_{j<t} (R[t][j] - R[j][j])", _BOTH,
        "Diaz-Rodriguez et al. 2018: every later stage, not only the last",
        _of_pairs(lambda t, j: j + 1),
        lambda m: sorted({c for t, j in _pairs(m) for c in ((t, j), (j + 1, j))}),
    ),
    Metric(
        "Isolated", "change a later stage",
        "2/(T(T-1)) sum_{t>=2} sum_{j<t} (R[t][j] - R[t-1][j])", _BOTH,
        "CORA (Powers et al. 2022), sign turned: what each stage did to each earlier task",
        _of_pairs(lambda t, j: t - 1),
        lambda m: sorted({c for t, j in _pairs(m) for c in ((t, j), (t - 1, j))}),
    ),
    Metric(
        "Forgetting", "forgetting as in RWalk", "mean_{j<T} (max_{j<=t<T} R[t][j] - R[T][j])",
        _TURNED, f"{_RWALK}: minus FM_seen",
        _FORGETTING.per_task, _FORGETTING.cells, peak=_FORGETTING.peak,
    ),
    Metric(
        "Forgetting_max", "forgetting as in Mammoth and PyCIL",
        "mean_{j<T} (max_{j<=t<=T} R[t][j] - R[T][j])", "positive = forgot, never negative",
        "Mammoth, PyCIL: the last row may be the peak",
        _FORGETTING_MAX.per_task, _FORGETTING_MAX.cells, peak=_FORGETTING_MAX.peak,
    ),
    Metric(
        "Forgetting_diag", "forgetting as in Avalanche", "mean_{j<T} (R[j][j] - R[T][j])", _TURNED,
        "Avalanche, averaged over the T-1 earlier experiences: minus BWT",
        lambda r, m: -_since_learned(r, m)[..., :-1],
        _since_learned_cells(-1),
    ),
    Metric(
        "FWT", "forward transfer", "mean_{j>1} (R[j-1][j] - R[0][j])",
        "positive = earlier tasks helped", f"{_GEM}, with the base model as the baseline",
        _transfer,
        lambda m: [c for j in range(1, _last(m)) for c in ((0, j), (j, j))],
    ),
    Metric(
        "FWT_T", "forward transfer over T", "1/T sum_{j>1} (R[j-1][j] - R[0][j])",
        "positive = earlier tasks helped",
        "FWT with a 0 for the first task in the mean: its share of Decomposition",
        _transfer,
        lambda m: [c for j in range(1, _last(m)) for c in ((0, j), (j, j))],
        _as_many_as_tasks,
    ),
    Metric(
        "TLG", "gain by a task's own stage", "mean_j (R[j][j] - R[j-1][j])",
        "higher is better: learned in the task's own stage",
        "Continual Reasoning Gym (arXiv 2608.18574), task learning gain",
        _just_learned,
        lambda m: [c for j in _tasks(m) for c in ((j, j), (j + 1, j))],
    ),
    Metric(
        "Gain", "gain over the base", "mean_j (R[T][j] - R[0][j])", "higher is better",
        "AvgAcc - BaseAcc",
        lambda r, m: r[..., _last(m), :] - r[..., 0, :],
        lambda m: [c for j in _tasks(m) for c in ((0, j), (_last(m), j))],
    ),
)  # fmt: skip

PARTS = ("BaseAcc", "FWT_T", "TLG", "BWT_T")
"""The terms of :data:`AvgAcc <METRICS>`: their sum is AvgAcc, for every matrix.

(T-1)/T FWT = FWT_T and (T-1)/T BWT = BWT_T, so this is the identity of arXiv 2608.18574. Task by
task the four terms telescope from R[0][j] over R[j-1][j] and R[j][j] to R[T][j].
"""

BY_KEY = {metric.key: metric for metric in METRICS}


def _is_change(metric: Metric) -> bool:
    """Whether it is a difference: 0 if all accuracies are equal, where a mean has their value."""
    same = np.full((4, 3), 50.0)
    return float(metric.number(same, Matrix(("a", "b", "c"), same))) == 0


SIGNED = frozenset(
    {
        "GeneralDelta",
        "GeneralDelta_others",
        "GapToJoint",
        *(m.key for m in METRICS if _is_change(m)),
    }
)
"""Keys of differences, which are shown with a sign."""
