"""The kind of forgetting: format, mode or content; pure functions.

A sample is *lost* if it was right before and is wrong now. The loss is of the kind

* **format** if the best reading of the final reply is still right: the answer is there, but not in
  the form that the protocol requires;
* **mode** if the reply is right again when its beginning is forced, to reason or to answer
  directly: the model still can, but no longer does so by itself;
* **content** if it is wrong either way.

Graded scores (a VQA answer worth 0.6) are split into amounts in the same way: how much of a
sample's score was lost, how much of it the best reading restores, and how much more a forced
beginning restores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.suite import Protocol

Array = npt.NDArray[np.float64]


def prefixes(protocol: Protocol) -> dict[str, str]:
    """The forced beginnings of a reply: name to text, from the protocol's form.

    A form without tags (the whole reply is the answer) has none.
    """
    found = {"reasoning": protocol.form.thought[0], "direct": protocol.form.open}
    return {name: text for name, text in found.items() if text}


class Kinds(NamedTuple):
    """Per sample, in [0, 1], shape (n,): how much was lost and won, and the loss by kind.

    ``won - lost`` is the change of score; ``lost = format + mode + content``. ``mode`` and
    ``content`` are None if nothing was asked with a forced beginning.
    """

    won: Array
    lost: Array
    format: Array
    mode: Array | None
    content: Array | None


def lost_and_won(before: Array, after: Array) -> tuple[Array, Array]:
    """Amounts lost and won per sample; for right/wrong scores the flips 1 -> 0 and 0 -> 1."""
    change = after - before
    return np.maximum(-change, 0), np.maximum(change, 0)


def kinds(
    before: Array, after: Array, after_lenient: Array, forced: Mapping[str, Array] | None
) -> Kinds:
    """Split each sample's loss by kind.

    Args:
        before: Strict scores when the task was at its peak, shape (n,), in [0, 1].
        after: Strict scores now.
        after_lenient: Best-reading scores now; never below ``after``.
        forced: Prefix name to best-reading scores of the forced replies, NaN where not asked;
            None if nothing was asked at all.
    """
    lost, won = lost_and_won(before, after)
    still = np.maximum(before - np.maximum(after_lenient, after), 0)  # lost in any form
    if forced is None or not forced:
        return Kinds(won, lost, lost - still, None, None)
    table = np.array([*forced.values()])
    if np.isnan(table[:, still > 0]).any():
        return Kinds(won, lost, lost - still, None, None)  # some lost samples were not asked
    restored = np.nan_to_num(table).max(axis=0)
    content = np.maximum(before - np.maximum(restored, np.maximum(after_lenient, after)), 0)
    return Kinds(won, lost, lost - still, still - content, content)


def peak_row(accuracy: Array, first: int, stop: int) -> int:
    """The first row in [first, stop) with the highest accuracy in a column of R."""
    return first + int(np.argmax(accuracy[first:stop]))


def kinds_of(
    strict: Array, lenient: Array, forced: Mapping[str, Array] | None, task: bool
) -> Kinds | None:
    """A benchmark's losses by the end, by kind; None if a row that they need is missing.

    Args:
        strict: Scores in each row of R, shape (T+1, n), NaN where not measured.
        lenient: Best-reading scores, likewise.
        forced: As in :func:`kinds`.
        task: Whether it is a task of the sequence, whose loss is measured from its peak in rows
            1..T-1; a general benchmark's loss is measured from the base model.
    """
    last, before = len(strict) - 1, 0
    if task:
        if last < 2 or np.isnan(strict[1:]).any():
            return None
        before = peak_row(strict.mean(axis=1), 1, last)
    rows = strict[[before, last]]
    if np.isnan(rows).any():
        return None
    # If nothing was lost in any form, nothing had to be asked.
    if forced is None and not (rows[0] > np.maximum(lenient[last], rows[1])).any():
        forced = {"none": np.full(rows.shape[1], np.nan)}
    return kinds(rows[0], rows[1], lenient[last], forced)


def to_ask(
    rows: Mapping[int, Sequence[Mapping[str, Any]]], task: int | None, last: int
) -> list[str]:
    """The sample ids to ask again with a forced beginning: those lost in any form.

    Args:
        rows: Row of R to the graded predictions of one benchmark, in the split's order.
        task: The task's column (from 0), whose peak is sought in rows 1..T-1; None for a general
            benchmark, which is compared with row 0.
        last: T.
    """
    if task == last - 1 or (task is not None and last < 2):
        return []  # the last task has had no time to be forgotten
    before = 0
    if task is not None:
        scores = np.array([[r["score"] for r in rows[t]] for t in range(1, last)])
        before = peak_row(scores.mean(axis=1), 0, last - 1) + 1
    return [
        then["id"]
        for then, now in zip(rows[before], rows[last], strict=True)
        if then["score"] > max(now["lenient"], now["score"])
    ]
