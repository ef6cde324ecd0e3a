"""Reads the answer of a reply in plain words: 'The answer is 12.', or whatever comes last.

Small models that were never shown a form do not write one, and graded by a form alone they score
nothing. This reading takes what a person would take for the answer. It is strict in one respect: a
reply that leaves open which of two answers it means has none.
"""

from __future__ import annotations

import re

from cpt_bench.grading.numbers import plain
from cpt_bench.grading.reading import undress

KINDS = ("number", "yesno", "word", "line", "whole")
"""Kinds of answers that are read in ways of their own; every other kind is read as a line."""

# 'The answer is', 'Answer:', 'The answer to the question is:', 'the final answer = '
_STATED = re.compile(r"\banswers?\b(?:(?!\banswer)[^.\n:=]){0,80}?(?:\b(?:is|are)\b:?|[:=])", re.I)
_SENTENCE = re.compile(r"(?<=[^\s])[.!?;](?=\s|$)")
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)(?!\.\d)")
_UNSURE = re.compile(r"[\s,]*(?:\b(?:or|and|to|maybe|perhaps)\b[\s,]*)+|\s*/\s*|\s*,\s*", re.I)
_DENIED = re.compile(r"(?:\b(?:not|never|isn't|cannot be)\b|n't\b)[\s\W]*(?:an?|the)?\s*$", re.I)
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.I)
_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’-][^\W\d_]+)*(?!\w)")
_OR = re.compile(r"\bor\b|/", re.I)
_QUOTES = "\"'`*_“”‘’«»$"


def read_natural(reply: str, kind: str) -> str | None:
    """The answer that ``reply`` gives in words of its own; None if it gives none, or several.

    What follows the last 'answer is' (or 'answer:'); without one, the last number, word, yes or no,
    or line of the reply, by the kind of answer.

    Args:
        reply: The whole reply.
        kind: The sample's answer kind; see :data:`KINDS`.
    """
    text = plain(reply).strip()
    if kind == "whole" or not text:
        return text or None
    stated = [*_STATED.finditer(text)]
    if not stated:
        return _last(text, kind)
    after = text[stated[-1].end() :].strip()
    # A number or a word is in the sentence; a list or a phrase is all of the line.
    piece = after.split("\n", 1)[0].strip()
    if kind in ("number", "yesno", "word"):
        piece = _SENTENCE.split(piece, maxsplit=1)[0].strip()
    return _only(piece, kind) if piece else None


def says_answer(reply: str, opening: str) -> bool:
    """Whether a reply ends with the sentence that the prompt asks for.

    Args:
        reply: The whole reply.
        opening: How the sentence begins, as 'The answer is '.
    """
    found = reply.rpartition(opening.strip())
    return bool(opening.strip() and found[1] and found[2].strip(" .:\n")) and (
        "\n" not in found[2].strip()
    )


def _digits(number: str) -> str:
    """A number as graders compare it: without separators and without a plus."""
    return number.replace(",", "").removeprefix("+")


def _only(piece: str, kind: str) -> str | None:
    """The answer in the words after 'the answer is'; None if they hold two, or deny one."""
    # 'not 12' denies its answer; 'never' alone is one (what is the opposite of always?).
    if re.match(r"(?:not|never)\b\W*\w", piece, re.I):
        return None
    if kind == "number":
        result = piece.rpartition("=")[2]
        found = {_digits(match[0]) for match in _NUMBER.finditer(result)}
        return found.pop() if len(found) == 1 else None
    if kind == "yesno":
        given = {match[0].capitalize() for match in _YES_NO.finditer(piece)}
        return given.pop() if len(given) == 1 else None
    bare = undress(piece.strip().rstrip(".")).strip(_QUOTES + " ")
    if kind == "word":
        words = _WORD.findall(bare)
        return words[-1] if words and not (len(words) > 1 and _OR.search(bare)) else None
    return bare or None


def _last(text: str, kind: str) -> str | None:
    """The last number, word, yes or no, or line of a reply that states no answer."""
    if kind == "number":
        found = [*_NUMBER.finditer(text)]
        if not found:
            return None
        before = text[found[-2].end() : found[-1].start()] if len(found) > 1 else "x"
        two = _UNSURE.fullmatch(before) and found[-2][0] != found[-1][0]
        denied = _DENIED.search(text[: found[-1].start()])
        return None if two or denied else _digits(found[-1][0])
    line = next((x.strip() for x in reversed(text.split("\n")) if x.strip()), "")
    if kind == "yesno":
        last = [m[0].capitalize() for m in _YES_NO.finditer(line)]
        return last[-1] if len(set(last)) == 1 else None
    bare = undress(line.rstrip(".")).strip(_QUOTES + " ")
    if kind == "word":
        words = _WORD.findall(bare)
        unsure = len(words) > 2 and words[-2].lower() == "or"
        negated = len(words) > 1 and words[-2].lower() in ("not", "never")
        return None if not words or unsure or negated else words[-1]
    return bare or None
