"""What a set of graded replies says as a whole: scores by group, how often there is no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from cpt_bench.grading.matchers import parse
from cpt_bench.suite import Sample


class Graded(NamedTuple):
    """One graded reply: the text that was compared (None for none), score in [0, 1], its form."""

    answer: str | None
    score: float
    format_ok: bool


def summarise(grader: str, samples: Sequence[Sample], replies: Sequence[Graded]) -> dict[str, Any]:
    """Accuracy in percent, overall and by group, with the share of replies without an answer.

    Returns:
        ``n``, ``accuracy``, ``format_ok`` and ``unparsed`` (percent), ``by_kind`` and
        ``by_category`` where there are several; for yes-or-no questions ``yes_no`` as well.
    """
    said = [
        parse(grader, reply.answer, sample) if reply.answer else None
        for sample, reply in zip(samples, replies, strict=True)
    ]
    out: dict[str, Any] = {
        "n": len(samples),
        "accuracy": _percent([reply.score for reply in replies]),
        "format_ok": _percent([float(reply.format_ok) for reply in replies]),
        "unparsed": _percent([float(answer is None) for answer in said]),
    }
    for name, groups in (
        ("by_kind", [s.kind for s in samples]),
        ("by_category", [s.category for s in samples]),
    ):
        if len(set(groups)) > 1:
            out[name] = {
                group: _part([r.score for r, g in zip(replies, groups, strict=True) if g == group])
                for group in sorted(set(groups))
            }
    golds = [sample.answers[0].strip().lower() for sample in samples]
    if samples and set(golds) <= {"yes", "no"}:
        out["yes_no"] = yes_no(golds, [a.lower() if a else None for a in said])
    return out


def yes_no(golds: Sequence[str], said: Sequence[str | None]) -> dict[str, float | None]:
    """POPE's figures with yes as the positive, in percent; a reply that says neither is no 'no'.

    ``yes_share`` and ``unparsed`` are of the replies: scorers that take rubbish for yes hide both.
    """
    hits = sum(g == s == "yes" for g, s in zip(golds, said, strict=True))
    claimed, there = said.count("yes"), golds.count("yes")
    precision = hits / claimed if claimed else None
    recall = hits / there if there else None
    f1 = 2 * hits / (claimed + there) if claimed + there else None
    shares = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "yes_share": claimed / len(said),
        "unparsed": said.count(None) / len(said),
    }
    return {name: None if v is None else round(100 * v, 4) for name, v in shares.items()}


def _part(scores: Sequence[float]) -> dict[str, Any]:
    return {"n": len(scores), "accuracy": _percent(scores)}


def _percent(values: Sequence[float]) -> float | None:
    return round(100 * sum(values) / len(values), 4) if values else None
