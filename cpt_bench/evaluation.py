"""Engine x task -> predictions: what was asked, answered and earned, one line a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cpt_bench.engines import Engine, Request, Sampling, miscounted
from cpt_bench.errors import CptBenchError
from cpt_bench.grading import Matcher, find_matcher, grade
from cpt_bench.suite import Protocol, Sample, Style, TaskCard

Row = dict[str, Any]


def matcher_of(card: TaskCard) -> Matcher:
    """The card's grader.

    Raises:
        CptBenchError: No grader has that name.
    """
    return find_matcher(card.grader, where=f"task {card.name}")


def evaluate(
    engine: Engine,
    card: TaskCard,
    samples: Sequence[Sample],
    protocol: Protocol,
    style: Style | None = None,
    prefix: str = "",
    progress: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """Ask every sample, grade every reply.

    Args:
        engine: What answers.
        card: The task.
        samples: What to ask.
        protocol: Prompts, decoding and form.
        style: Another way of asking than the one that ranks.
        prefix: How every reply must begin.
        progress: Told how many are answered.

    Returns:
        One row a sample, in the split's order: ``id``, ``reply``, ``tokens``, then what
        :func:`graded` adds.
    """
    requests = [
        Request(s.id, protocol.prompt(s.question, style), s.images, prefix) for s in samples
    ]
    decoding = protocol.decoding
    sampling = Sampling(decoding.temperature, decoding.top_p or 1.0)
    replies = engine.generate(requests, decoding.max_new_tokens, progress, sampling)
    rows = [
        {"id": s.id, "reply": r.text, "tokens": r.tokens}
        for s, r in zip(samples, replies, strict=True)
    ]
    return graded(rows, card, samples, protocol)


def graded(
    rows: Sequence[Row], card: TaskCard, samples: Sequence[Sample], protocol: Protocol
) -> list[Row]:
    """``rows`` with ``extracted``, ``score``, ``lenient`` and ``format_ok`` computed from the gold.

    Raises:
        CptBenchError: The rows are not one a sample, in the split's order, or one has a reply or a
            number of tokens that is none.
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
        tokens = row.get("tokens")
        if why := miscounted(tokens, reply, protocol.decoding.max_new_tokens):
            raise CptBenchError(f"the reply to {sample.id} {why}", where=where)
        got = grade(reply, sample, protocol.form, matcher)
        kept: Row = {"id": sample.id, "reply": reply, "tokens": tokens}
        out.append(
            kept
            | {
                "extracted": got.extracted,
                "score": got.score,
                "lenient": got.lenient,
                "format_ok": got.format_ok,
            }
        )
    return out
