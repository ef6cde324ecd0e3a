"""The samples in a report: questions, pictures, gold answers and each stage's replies.

A report must open from disk and fit into a mail, so it includes only some samples of a large run:
forgotten ones come first, and the page shows how many are left out.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_jsonl
from cpt_bench.images import decode
from cpt_bench.report.text import visible
from cpt_bench.results.load import Run
from cpt_bench.results.losses import peak_row
from cpt_bench.suite import Sample

TEXT_BUDGET = 2_600_000
IMAGE_BUDGET = 3_200_000
"""Sizes in bytes."""

LONGEST_SIDE = 320
REPLY_LENGTH = 1_200


def browser(runs: Sequence[Run]) -> dict[str, Any]:
    """Samples with their replies, within the budgets.

    Returns:
        ``benchmarks`` (name, number of samples, each run's row that counts as 'before'),
        ``replies`` (each distinct text once), ``images`` (data URIs), ``samples``: ``[benchmark,
        id, question, gold, images, runs]`` with, for each run, per stage ``[reply, score, best
        reading, form]`` or null.
    """
    suite, limit = runs[0].suite, runs[0].record.get("limit")
    names = (*suite.sequence, *suite.general)
    splits = {name: runs[0].splits[name][:limit] for name in names}
    before = {name: [_before(run, name) for run in runs] for name in names}
    rows = {name: [_predictions(run, name) for run in runs] for name in names}
    replies: dict[str, int] = {}
    images: dict[bytes, int] = {}
    pictures: list[str] = []
    out: list[list[Any]] = []
    text_left, image_left = TEXT_BUDGET, IMAGE_BUDGET
    for name, i in _in_order(runs, names, before):
        sample = splits[name][i]
        cells, cost = _cells(runs, name, i, rows[name], replies)
        cost += len(sample.question) + 120
        if cost > text_left:
            break
        text_left -= cost
        shown = []
        for picture in sample.images:
            if picture not in images and image_left > 0:
                uri = _picture(picture, sample)
                image_left -= len(uri)
                images[picture] = len(pictures)
                pictures.append(uri)
            shown.append(images.get(picture, -1))
        gold = [visible(a, 200, lines=False) for a in sample.answers[:5]]
        question = visible(sample.question, 2_000)
        out.append([names.index(name), visible(sample.id, 100), question, gold, shown, cells])
    return {
        "benchmarks": [
            {
                "name": name,
                "general": name in suite.general,
                "n": len(splits[name]),
                "before": before[name],
            }
            for name in names
        ],
        "replies": [visible(text, REPLY_LENGTH) for text in replies],
        "images": pictures,
        "samples": out,
    }


def _before(run: Run, name: str) -> int:
    """The row that the last row is compared with: a task's peak, or the base for general ones."""
    last, strict = len(run.suite.sequence), run.scores.outcomes[name].strict
    if name in run.suite.general or last < 2 or np.isnan(strict[1:last]).any():
        return 0
    if run.suite.sequence[-1] == name:
        return 0  # the last task cannot have been forgotten yet; compare with the base
    return peak_row(strict.mean(axis=1), 1, last)


def _predictions(run: Run, name: str) -> list[list[str] | None]:
    """The replies of each stage, in the split's order; None if the cell is missing."""
    out: list[list[str] | None] = []
    for t in range(len(run.suite.sequence) + 1):
        file = run.paths.predictions(t, name)
        out.append([row["reply"] for row in read_jsonl(file)] if file.exists() else None)
    return out


def _in_order(
    runs: Sequence[Run], names: Sequence[str], before: dict[str, list[int]]
) -> Iterator[tuple[str, int]]:
    """Samples to show, the most informative first, taken from the benchmarks in turn."""
    queues: list[list[tuple[str, int]]] = []
    for name in names:
        score = np.zeros(runs[0].scores.outcomes[name].strict.shape[1])
        for run, row in zip(runs, before[name], strict=True):
            strict = run.scores.outcomes[name].strict
            change = np.nan_to_num(strict[-1] - strict[row])
            score += 10 * np.maximum(-change, 0) + np.maximum(change, 0)
        queues.append([(name, int(i)) for i in np.argsort(-score, kind="stable")])
    return (item for item in chain.from_iterable(zip_longest(*queues)) if item is not None)


def _cells(
    runs: Sequence[Run],
    name: str,
    i: int,
    rows: list[list[list[str] | None]],
    replies: dict[str, int],
) -> tuple[list[list[Any]], int]:
    """One sample's cells for each run, and about how many bytes they take."""
    out: list[list[Any]] = []
    cost = 0
    for run, of_run in zip(runs, rows, strict=True):
        found = run.scores.outcomes[name]
        cells: list[Any] = []
        for t, of_stage in enumerate(of_run):
            if of_stage is None:
                cells.append(None)
                continue
            reply = of_stage[i]
            if reply not in replies:
                replies[reply] = len(replies)
                cost += min(len(reply), REPLY_LENGTH) + 4
            grades = (found.strict[t, i], found.lenient[t, i], found.format_ok[t, i])
            cells.append([replies[reply], *(_short(g) for g in grades)])
            cost += 16
        out.append(cells)
    return out, cost


def _short(value: float) -> float | int:
    return int(value) if value in (0.0, 1.0) else round(float(value), 3)


def _picture(data: bytes, sample: Sample) -> str:
    """A picture as a small data URI; empty if it cannot be decoded."""
    try:
        image = decode(data, sample.id)
    except CptBenchError:
        return "data:,"
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=60, method=2)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
