"""A run folder's predictions of one benchmark -> the scores of each sample after each stage."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.evaluation.predictions import graded, read_predictions
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.losses import Kinds, kinds_of, prefixes
from cpt_bench.suite import Protocol, Sample, Suite, TaskCard

Array = npt.NDArray[np.float64]


class Outcomes(NamedTuple):
    """The scores of each sample of one benchmark: shape (T+1, n), NaN rows where not measured.

    Attributes:
        strict: The scores that rank, in [0, 1].
        lenient: Scores of the best reading.
        format_ok: 1 if the reply has the protocol's form.
        tokens: Length of the reply; None if unknown.
        reasoned: 1 if the reply contains a thought; None if unknown.
        forced: After the last stage: prefix name to best-reading scores of replies whose beginning
            was forced, shape (n,), NaN where not asked. None if nothing was asked.
    """

    strict: Array
    lenient: Array
    format_ok: Array
    tokens: Array | None = None
    reasoned: Array | None = None
    forced: dict[str, Array] | None = None

    def kinds(self, task: bool) -> Kinds | None:
        """The losses by the end, by kind; see :func:`cpt_bench.results.losses.kinds_of`."""
        return kinds_of(self.strict, self.lenient, self.forced, task)


def percent(scores: Array) -> Array:
    """Row means in percent; NaN rows stay NaN."""
    return np.asarray(100 * scores.mean(axis=1), dtype=np.float64)


def read_outcomes(paths: RunFolder, suite: Suite, name: str, samples: list[Sample]) -> Outcomes:
    """One benchmark's predictions of all stages, graded."""
    card, protocol, last = suite.card(name), suite.protocol, len(suite.sequence)
    table = np.full((5, last + 1, len(samples)), np.nan)
    for t in range(last + 1):
        file = paths.predictions(t, name)
        if not file.exists():
            continue
        rows = read_predictions(file, [sample.id for sample in samples])
        for i, row in enumerate(graded(rows, card, samples, protocol)):
            length = math.nan if row["tokens"] is None else row["tokens"]
            thinks = protocol.form.holds_thought(row["reply"])
            table[:, t, i] = row["score"], row["lenient"], row["format_ok"], length, thinks
    strict, lenient, form, tokens, reasoned = table
    forced = _read_forced(paths, card, protocol, samples, last)
    return Outcomes(strict, lenient, form, tokens, reasoned, forced)


def _read_forced(
    paths: RunFolder, card: TaskCard, protocol: Protocol, samples: list[Sample], last: int
) -> dict[str, Array] | None:
    found = {}
    for prefix in prefixes(protocol):
        file = paths.forced(last, prefix, card.name)
        if not file.exists():
            continue
        rows = read_predictions(file, [sample.id for sample in samples], some=True)
        asked = {row["id"] for row in rows}
        at = [i for i, s in enumerate(samples) if s.id in asked]
        scores = np.full(len(samples), np.nan)
        regraded = graded(rows, card, [samples[i] for i in at], protocol)
        scores[at] = [row["lenient"] for row in regraded]
        found[prefix] = scores
    return found or None
