"""Intervals over seeds, and when two methods tie; small enough to need no scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom, then the normal's.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def t95(freedom: float) -> float:
    """The two-sided 95 % quantile; fractions of a degree are dropped, to err on the wide side."""
    whole = math.floor(freedom)
    if whole < 1:
        return math.inf
    if whole <= len(_T95):
        return _T95[whole - 1]
    # Between 30 and infinity the quantile falls as 1.96 + 2.46 / degrees, within 0.002.
    return 1.96 + 2.46 / whole


class Mean(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: In the values' unit.
        half: Half the width of the 95 % t-interval; None below two seeds.
        sd: Standard deviation over seeds (n-1); None below two.
        n: Seeds.
    """

    mean: float
    half: float | None
    sd: float | None
    n: int


def mean_of(values: Sequence[float]) -> Mean:
    """Mean with its t-interval over seeds."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Mean(mean, None, None, n)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return Mean(mean, t95(n - 1) * sd / math.sqrt(n), sd, n)


def differ(a: Mean, b: Mean) -> bool:
    """Whether the 95 % interval of the difference of two means excludes zero (Welch's t).

    Seeds are not paired between methods. A mean of one seed differs from nothing.
    """
    if a.sd is None or b.sd is None:
        return False
    va, vb = a.sd**2 / a.n, b.sd**2 / b.n
    if va + vb == 0:
        return a.mean != b.mean
    freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    return abs(a.mean - b.mean) > t95(max(freedom, 1.0)) * math.sqrt(va + vb)


def ranks(means: Sequence[Mean]) -> list[tuple[int, int] | None]:
    """For each mean the best and worst place it may have: 1 + those surely above, n - those below.

    Means of one seed have no rank.
    """
    placed = [m for m in means if m.sd is not None]
    out: list[tuple[int, int] | None] = []
    for mean in means:
        if mean.sd is None:
            out.append(None)
            continue
        others = [m for m in placed if m is not mean and differ(mean, m)]
        above = sum(m.mean > mean.mean for m in others)
        out.append((1 + above, len(placed) - (len(others) - above)))
    return out


def wilson(percent: float, n: int, z: float = 2.576) -> tuple[float, float]:
    """Wilson's interval of a share, in percent; z = 2.576 makes it 99 %."""
    p = min(max(percent / 100, 0.0), 1.0)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * (middle - half), 100 * (middle + half)


def predicted(values: Sequence[float], floor: float) -> tuple[float, float]:
    """Where one more seed should fall, 95 %: mean +- t sd sqrt(1 + 1/n), and at least ``floor``."""
    own = mean_of(values)
    half = floor
    if own.sd is not None:
        half = max(half, t95(own.n - 1) * own.sd * math.sqrt(1 + 1 / own.n))
    return own.mean - half, own.mean + half
