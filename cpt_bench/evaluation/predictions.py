"""Evaluates an engine on a task: one graded prediction per sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cpt_bench.engines import Engine, Request, Sampling, miscounted
from cpt_bench.errors import CptBenchError, shown
from cpt_bench.files import parse_jsonl, read_bytes, whole_characters
from cpt_bench.grading import Matcher, find_matcher, grade
from cpt_bench.suite import Protocol, Sample, Style, TaskCard

Row = dict[str, Any]


def matcher_of(card: TaskCard) -> Matcher:
    """The card's grader.

    Raises:
        CptBenchError: No grader has that name.
    """
    return find_matcher(card.located().grader, where=f"task {card.name}")


def evaluate(
    engine: Engine,
    card: TaskCard,
    samples: Sequence[Sample],
    protocol: Protocol,
    style: Style | None = None,
    prefix: str = "",
    progress: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """Ask every question and grade every reply.

    Args:
        engine: The engine that answers.
        card: The task.
        samples: The questions.
        protocol: Prompts, decoding and answer form.
        style: A prompt style other than the one that is ranked.
        prefix: How every reply must begin.
        progress: Called with the number of questions answered so far.

    Returns:
        One row per sample, in the split's order: ``id``, ``reply``, ``tokens``, then what
        :func:`graded` adds.
    """
    requests = [
        Request(s.id, protocol.prompt(s.question, style), s.images, prefix, system=protocol.system)
        for s in samples
    ]
    decoding = protocol.decoding
    sampling = Sampling(decoding.temperature, decoding.top_p or 1.0)
    replies = engine.generate(requests, decoding.max_new_tokens, progress, sampling)
    rows = [
        {"id": s.id, "reply": r.text, "tokens": r.tokens}
        for s, r in zip(samples, replies, strict=True)
    ]
    return graded(rows, card, samples, protocol)


MOST_TOKENS = 2**31
"""No reply is longer than this; a larger number must be a mistake."""


def read_predictions(file: Path, ids: Sequence[str], some: bool = False) -> list[Row]:
    """The lines of a predictions file, sorted into the order of ``ids``.

    Args:
        file: JSON lines with ``id``, ``reply`` and, if known, ``tokens``.
        ids: Ids of the test samples. A line's id is compared as text: 7 equals '7'.
        some: Whether lines may be missing.

    Returns:
        One row per line; ``id`` is text.

    Raises:
        CptBenchError: A line is incomplete, or an id is missing, duplicated or unknown.
    """
    known, found = set(ids), dict[str, tuple[str, Row]]()
    for where, row in parse_jsonl(read_bytes(file), file):
        name = _id_of(row, where)
        if name not in known:
            raise CptBenchError(f"no test sample has the id {shown(row['id'])}", where=where)
        if name in found:
            first = found[name][0].rpartition(":")[2]
            raise CptBenchError(f"{shown(name)} was already answered in line {first}", where=where)
        reply = row.get("reply")
        if not isinstance(reply, str):
            raise CptBenchError(f"the reply is {shown(reply)}, not text", where=where)
        tokens = _tokens_of(row, where)
        found[name] = where, {**row, "id": name, "tokens": tokens}
    missing = [name for name in ids if name not in found]
    if missing and not some:
        raise CptBenchError(
            f"{len(missing)} of {len(ids)} test samples have no prediction: {_few(missing)}",
            where=file,
        )
    return [found[name][1] for name in ids if name in found]


def _id_of(row: Row, where: str) -> str:
    given = row.get("id")
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise CptBenchError(f"the id is {shown(given)}, not text or a whole number", where=where)
    return str(given)


def _tokens_of(row: Row, where: str) -> int | None:
    given = row.get("tokens")
    if given is None:
        return None
    # Tables with a missing value in a column of integers write 12.0.
    whole = isinstance(given, int | float) and not isinstance(given, bool) and given == given // 1
    if not whole or not 0 <= given <= MOST_TOKENS:
        raise CptBenchError(
            f"tokens is {shown(given)}, not a whole number of 0 or more",
            where=where,
            todo="Leave it out if it is not known",
        )
    return int(given)


def _few(names: Iterable[str]) -> str:
    names = [shown(name) for name in names]
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def graded(
    rows: Sequence[Row], card: TaskCard, samples: Sequence[Sample], protocol: Protocol
) -> list[Row]:
    """``rows`` with ``extracted``, ``score``, ``lenient`` and ``format_ok`` computed from the gold.

    Raises:
        CptBenchError: The rows are not one per sample in the split's order, or a reply or its
            number of tokens is invalid.
    """
    matcher, where = matcher_of(card), f"predictions of {card.name}"
    if [row.get("id") for row in rows] != [s.id for s in samples]:
        raise CptBenchError(
            f"{len(rows)} predictions do not match the {len(samples)} test samples by id",
            where=where,
        )
    out = []
    for row, sample in zip(rows, samples, strict=True):
        reply = row.get("reply")
        if not isinstance(reply, str):
            raise CptBenchError(f"the reply to {sample.id} is {reply!r}, not text", where=where)
        reply = whole_characters(reply)
        tokens = row.get("tokens")
        if why := miscounted(tokens, reply, protocol.decoding.max_new_tokens):
            raise CptBenchError(f"the reply to {sample.id} {why}", where=where)
        got = grade(reply, sample, protocol.form, matcher)
        asked: Row = {"id": sample.id, "reply": reply, "tokens": tokens}
        out.append(
            asked
            | {
                "extracted": got.extracted,
                "score": got.score,
                "lenient": got.lenient,
                "format_ok": got.format_ok,
            }
        )
    return out
