"""Scores a reply: finds the answer and compares it with the gold; pure, no torch.

Every reply is graded by two readings. The *strict* one ranks: the reply must have the protocol's
form, with the answer in its place. The *best reading* also accepts an answer in another form. The
difference between the two is format, not knowledge, and a benchmark of forgetting must distinguish
them.
"""

from __future__ import annotations

from typing import NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.grading.matchers import AS_PUBLISHED, MATCHERS, Matcher
from cpt_bench.grading.natural import read_natural, says_answer
from cpt_bench.grading.reading import (
    TAGS,
    has_boxed_form,
    is_thinking,
    read_boxed,
    read_form,
    read_freely,
    undress,
)
from cpt_bench.grading.symbolic import NO_BOX, mathruler
from cpt_bench.plugins import value_of
from cpt_bench.suite import AnswerForm, RewardWeights, Sample
from cpt_bench.suite.protocol import MARK, as_spelled

__all__ = ["AS_PUBLISHED", "MATCHERS", "Grade", "Matcher", "find_matcher", "grade", "reward"]


class Grade(NamedTuple):
    """The grade of a reply.

    Attributes:
        score: Under the strict reading, in [0, 1]; 0 if the form is not met (under the forms
            ``boxed`` and ``natural`` the two are judged separately).
        extracted: The answer that was compared, or None if none was found.
        format_ok: Whether the reply has the protocol's form.
        lenient: The best reading's score, in [0, 1]; never below ``score``.
        read: The answer that ``score`` is for; None if the strict reading finds none.
    """

    score: float
    extracted: str | None
    format_ok: bool
    lenient: float
    read: str | None


def grade(reply: str, sample: Sample, form: AnswerForm, matcher: Matcher) -> Grade:
    """Grade one reply.

    Args:
        reply: The model's reply, without special tokens.
        sample: The question with its gold answers.
        form: The protocol's form of a reply.
        matcher: Compares an answer with the gold answers; see :data:`MATCHERS`.

    Raises:
        CptBenchError: The sample's gold is such that the matcher could never find a reply right.
    """
    if MARK in reply:
        reply, sample = as_spelled(reply), _spelled(sample)
    if form.kind == "whole":
        whole = reply.strip()
        score = matcher(whole, sample)
        best = _best(score, reply, read_freely(reply, TAGS), TAGS, sample, matcher)
        return Grade(score, whole or None, bool(whole), best, whole)
    if form.kind == "boxed":
        return _grade_boxed(reply, sample, form, matcher)
    if form.kind == "natural":
        return _grade_natural(reply, sample, form, matcher)
    answer = read_form(reply, form)
    if answer is not None:
        score = matcher(answer, sample)
        best = score if score >= 1 else _undressed(score, reply, answer, form, sample, matcher)
        return Grade(score, answer, True, best, answer)
    loose = read_freely(reply, form)
    return Grade(0.0, loose, False, _best(0.0, reply, loose, form, sample, matcher), None)


def _spelled(sample: Sample) -> Sample:
    """``sample`` as its reply is read: without the mark that :func:`as_words` puts into tokens."""
    texts = {
        name: tuple(map(as_spelled, getattr(sample, name)))
        for name in ("answers", "choices", "annotators")
    }
    return sample.model_copy(update=texts)


def _grade_boxed(reply: str, sample: Sample, form: AnswerForm, matcher: Matcher) -> Grade:
    """The publication's reading: the last box counts with or without the form around it."""
    read = boxed = read_boxed(reply)
    if read is None and matcher is mathruler:
        read = NO_BOX  # as published; for every other grader, without a box there is no answer
    score = 0.0 if read is None else matcher(read, sample)
    loose = read_freely(reply, form) if boxed is None else boxed
    best = _best(score, reply, loose, form, sample, matcher)
    return Grade(score, loose, has_boxed_form(reply), best, read)


def _grade_natural(reply: str, sample: Sample, form: AnswerForm, matcher: Matcher) -> Grade:
    """What a person takes for the answer; the asked-for sentence is judged apart from it."""
    read = read_natural(reply, sample.kind)
    score = 0.0 if read is None else matcher(read, sample)
    best = _best(score, reply, read_freely(reply, TAGS), TAGS, sample, matcher)
    return Grade(score, read, says_answer(reply, form.open), best, read)


def _best(
    score: float,
    reply: str,
    loose: str | None,
    form: AnswerForm,
    sample: Sample,
    matcher: Matcher,
) -> float:
    """The best of ``score`` and the scores of ``loose`` with and without its markup."""
    if score < 1 and loose:
        score = max(score, matcher(loose, sample))
    if score < 1 and loose:
        score = _undressed(score, reply, loose, form, sample, matcher)
    return score


def _undressed(
    score: float, reply: str, answer: str, form: AnswerForm, sample: Sample, matcher: Matcher
) -> float:
    """The better of ``score`` and the score of ``answer`` without its markup."""
    bare = undress(answer, boxes=not is_thinking(reply, form))
    return max(score, matcher(bare, sample)) if bare and bare != answer else score


def find_matcher(name: str, where: object = "") -> Matcher:
    """A grader by its name, or a third party's as ``pkg/name``, ``module:function``, ``./f.py:f``.

    Raises:
        CptBenchError: No grader has that name.
    """
    if name in MATCHERS:
        return MATCHERS[name]
    if ":" in name or "/" in name:
        found: Matcher = value_of("graders", name)
        if not callable(found):
            raise CptBenchError(
                f"{name!r} is not a function",
                where=where,
                todo="A grader is a function of (answer, sample) that returns 0 to 1",
            )
        return found
    raise CptBenchError(
        f"no grader is called {name!r}", where=where, todo=did_you_mean(name, [*MATCHERS])
    )


def reward(graded: Grade, weights: RewardWeights) -> float:
    """``accuracy * score + format * format_ok`` (arXiv 2507.05386: 0.9 and 0.1), in [0, 1]."""
    return weights.accuracy * graded.score + weights.format * float(graded.format_ok)
