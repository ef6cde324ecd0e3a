"""From a reply to a score: find the answer, compare it with the gold; pure, no torch.

Two readings of every reply are kept. The *strict* one ranks: the reply must have the protocol's
form, and the answer stands where the form says. The *best reading* asks what the reply says when
its form is forgiven; the gap between the two is format, not knowledge, and a benchmark of
forgetting has to tell them apart.
"""

from __future__ import annotations

from typing import NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.grading.matchers import AS_PUBLISHED, MATCHERS, Matcher
from cpt_bench.grading.reading import has_boxed_form, read_boxed, read_form, read_freely
from cpt_bench.plugins import resolve
from cpt_bench.suite import AnswerForm, RewardWeights, Sample

__all__ = ["AS_PUBLISHED", "MATCHERS", "Grade", "Matcher", "find_matcher", "grade", "reward"]


class Grade(NamedTuple):
    """What a reply earned.

    Attributes:
        score: Under the strict reading, in [0, 1]; 0 when the form is not met (under the form
            ``boxed`` the two are judged apart, as in the publication).
        extracted: The answer that was compared, or None when none was found.
        format_ok: Whether the reply has the protocol's form.
        lenient: The best reading's score, in [0, 1]; never below ``score``.
    """

    score: float
    extracted: str | None
    format_ok: bool
    lenient: float


def grade(reply: str, sample: Sample, form: AnswerForm, matcher: Matcher) -> Grade:
    """Grade one reply.

    Args:
        reply: What the model wrote, special tokens removed.
        sample: The question with its gold answers.
        form: The protocol's form of a reply.
        matcher: Compares an answer with the gold answers; see :data:`MATCHERS`.
    """
    if form.kind == "whole":
        whole = reply.strip()
        score = matcher(whole, sample)
        return Grade(score, whole or None, bool(whole), score)
    if form.kind == "boxed":
        return _grade_boxed(reply, sample, form, matcher)
    answer = read_form(reply, form)
    if answer is not None:
        score = matcher(answer, sample)
        return Grade(score, answer, True, score)
    loose = read_freely(reply, form)
    return Grade(0.0, loose, False, matcher(loose, sample) if loose else 0.0)


def _grade_boxed(reply: str, sample: Sample, form: AnswerForm, matcher: Matcher) -> Grade:
    """The publication's reading: the last box counts with or without the form around it."""
    boxed = read_boxed(reply)
    # mathruler gives the word None where there is no box, and grades it like any other.
    score = matcher("None" if boxed is None else boxed, sample)
    loose = boxed if boxed is not None else read_freely(reply, form)
    lenient = score if boxed is not None or not loose else max(score, matcher(loose, sample))
    return Grade(score, loose, has_boxed_form(reply), lenient)


def find_matcher(name: str, where: object = "") -> Matcher:
    """A grader by its name, or a third party's as ``pkg/name``, ``module:function``, ``./f.py:f``.

    Raises:
        CptBenchError: No grader has that name.
    """
    if name in MATCHERS:
        return MATCHERS[name]
    if ":" in name or "/" in name:
        found: Matcher = resolve("graders", name).value
        return found
    raise CptBenchError(
        f"no grader is called {name!r}", where=where, todo=did_you_mean(name, [*MATCHERS])
    )


def reward(graded: Grade, weights: RewardWeights) -> float:
    """``accuracy * score + format * format_ok`` (arXiv 2507.05386: 0.9 and 0.1), in [0, 1]."""
    return weights.accuracy * graded.score + weights.format * float(graded.format_ok)
