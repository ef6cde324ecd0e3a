"""Summarises a set of graded replies: scores by group, and how many replies have no answer.

Everything refers to the reading that scores: a reply without an answer under the strict reading has
none here either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.grading.matchers import MATCHERS, Matcher, parse
from cpt_bench.suite import Sample


class Graded(NamedTuple):
    """One graded reply: the text that was scored (None for none), score in [0, 1], its form."""

    answer: str | None
    score: float
    format_ok: bool


def summarise(
    grader: str,
    samples: Sequence[Sample],
    replies: Sequence[Graded],
    matcher: Matcher | None = None,
) -> dict[str, Any]:
    """Accuracy in percent, overall and by group, with the share of replies without an answer.

    Args:
        grader: Its name.
        samples: The questions.
        replies: One reply per sample.
        matcher: The grader itself; needed only for a third party's.

    Returns:
        ``n``, ``accuracy``, ``format_ok`` and ``unparsed`` (percent), ``by_kind`` and
        ``by_category`` where there are several; for yes-or-no questions ``yes_no`` as well.
    """
    matcher = matcher or MATCHERS[grader]
    golds = [sample.answers[0].strip().lower() for sample in samples]
    binary = bool(samples) and set(golds) <= {"yes", "no"}
    taken = [
        None
        if reply.answer is None
        else _yes_or_no(grader, matcher, reply.answer, sample)
        if binary
        else parse(grader, reply.answer, sample)
        for sample, reply in zip(samples, replies, strict=True)
    ]
    out: dict[str, Any] = {
        "n": len(samples),
        "accuracy": _percent([reply.score for reply in replies]),
        "format_ok": _percent([float(reply.format_ok) for reply in replies]),
        "unparsed": _percent([float(answer is None) for answer in taken]),
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
    if binary:
        out["yes_no"] = yes_no(golds, taken)
    return out


def _yes_or_no(grader: str, matcher: Matcher, answer: str, sample: Sample) -> str | None:
    """Which of the two the grader reads ``answer`` as: the one that it would find right."""
    gold, scores = sample.answers[0].strip().lower(), dict[str, float]()
    several = sample.annotators or (sample.answers if grader.startswith("vqa") else ())
    for word in ("yes", "no"):
        change: dict[str, Any] = {} if word == gold and not several else {"answers": (word,)}
        if several:
            # All but one agree where they did not all agree: some graders read the two differently.
            last = word if len(set(several)) == 1 else ""
            change["annotators"] = (*(word,) * (len(several) - 1), last)
        try:
            scores[word] = matcher(answer, sample.model_copy(update=change))
        except CptBenchError:  # the other word is not among the options
            scores[word] = 0.0
    best = max(scores, key=lambda word: scores[word])
    return best if scores[best] > min(scores.values()) else None


def yes_no(golds: Sequence[str], taken: Sequence[str | None]) -> dict[str, float | None]:
    """POPE's figures with yes as the positive, in percent; a reply with neither is not a 'no'.

    ``yes_share`` and ``unparsed`` are shares of replies: scorers that count anything as yes hide
    both.
    """
    hits = sum(g == s == "yes" for g, s in zip(golds, taken, strict=True))
    claimed, there = taken.count("yes"), golds.count("yes")
    precision = hits / claimed if claimed else None
    recall = hits / there if there else None
    f1 = 2 * hits / (claimed + there) if claimed + there else None
    shares = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "yes_share": claimed / len(taken),
        "unparsed": taken.count(None) / len(taken),
    }
    return {name: None if v is None else round(100 * v, 4) for name, v in shares.items()}


def _part(scores: Sequence[float]) -> dict[str, Any]:
    return {"n": len(scores), "accuracy": _percent(scores)}


def _percent(values: Sequence[float]) -> float | None:
    return round(100 * sum(values) / len(values), 4) if values else None
