"""Computes the metrics of a method from its accuracy matrix; pure functions.

``R`` has T+1 rows and T columns: ``R[t][j]`` is the accuracy on task j after stage t, row 0 is the
base model. Each number comes with its passport: name, formula, sign, divisor, n, interval, source.
If any of a number's cells is missing, the number is None and its passport names the missing cells;
no average is taken over just the cells that are present.

Conventions differ between papers; here each variant has its own name. Differences are signed 'after
minus before', so that forgetting is negative; the few keys called ``Forgetting`` have the sign of
their papers.
"""

from cpt_bench.metrics.definitions import METRICS, PARTS, SIGNED, Metric
from cpt_bench.metrics.intervals import (
    DRAWS,
    Interval,
    bootstrap_means,
    exact_sign_test,
    holm,
    interval,
    sample_interval,
    t_interval,
    t_quantile,
)
from cpt_bench.metrics.matrix import (
    Array,
    Matrix,
    cell_name,
    matrix_from_json,
    matrix_to_json,
    missing_cells,
    rounded,
)
from cpt_bench.metrics.passports import evaluate, general_delta, passport
from cpt_bench.metrics.stages import Forgotten, forgotten_by, quadratic

__all__ = [
    "DRAWS",
    "METRICS",
    "PARTS",
    "SIGNED",
    "Array",
    "Forgotten",
    "Interval",
    "Matrix",
    "Metric",
    "bootstrap_means",
    "cell_name",
    "evaluate",
    "exact_sign_test",
    "forgotten_by",
    "general_delta",
    "holm",
    "interval",
    "matrix_from_json",
    "matrix_to_json",
    "missing_cells",
    "passport",
    "quadratic",
    "rounded",
    "sample_interval",
    "t_interval",
    "t_quantile",
]
