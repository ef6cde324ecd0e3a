"""Matchers: (answer, sample) -> score in [0, 1]. Each compares the whole answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from math import isclose, isfinite

from cpt_bench.grading import official, vqa
from cpt_bench.grading.symbolic import math, mathruler, parse_math
from cpt_bench.suite import Sample

Matcher = Callable[[str, Sample], float]

_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_MARKED = re.compile(r"\(?([A-Za-z])[).:] ?(.+)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


@lru_cache(maxsize=4096)  # the same gold answers and short replies come again and again
def normalise(text: str) -> str:
    """Compatibility characters folded, lower case, single spaces, no full stop at the end."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(".").strip()


def exact(answer: str, sample: Sample) -> float:
    """1 when the answer equals one of the gold answers after :func:`normalise`."""
    given = normalise(answer)
    for gold in sample.answers:
        if given == normalise(gold):
            return 1.0
    return 0.0


def letter(answer: str, sample: Sample) -> float:
    """1 for the option's letter: ``C``, ``c``, ``(C)``, ``C.`` or ``C:``."""
    found = _LETTER.fullmatch(normalise(answer))
    return float(found is not None and found[1].upper() == sample.answers[0].strip().upper())


def choice(answer: str, sample: Sample) -> float:
    """1 for the option's letter, its words, or both: ``C``, ``(C) a cat``, ``a cat``."""
    gold = sample.answers[0].strip().upper()
    return float(parse_choice(answer, sample) == gold)


def parse_choice(answer: str, sample: Sample) -> str | None:
    """The letter that the whole of ``answer`` names; None when it names none, or more than one."""
    text = normalise(answer)
    found = _LETTER.fullmatch(text)
    if found is not None:
        return found[1].upper()
    words = [normalise(c) for c in sample.choices]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    # The whole answer first: an option's words may themselves begin like 'a. '.
    same = [x for x, option in zip(letters, words, strict=False) if option and option == text]
    if same:
        return same[0] if len(same) == 1 else None
    marked = _MARKED.fullmatch(text)
    if marked is not None:
        letter_given, rest = marked[1].upper(), marked[2]
        place = letters.find(letter_given)
        if 0 <= place < len(words) and words[place] == rest.strip():
            return letter_given
    return None


def number(answer: str, sample: Sample) -> float:
    """1 when the answer is a number equal to a gold one (relative tolerance 1e-6)."""
    given = as_number(answer)
    if given is None:
        return 0.0
    golds = (as_number(gold) for gold in sample.answers)
    return float(any(g is not None and isclose(given, g, rel_tol=1e-6) for g in golds))


@lru_cache(maxsize=4096)
def as_number(text: str) -> float | None:
    """The finite number that all of ``text`` spells, or None."""
    text = unicodedata.normalize("NFKC", text).strip()
    if not _NUMBER.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if isfinite(value) else None


def yesno(answer: str, sample: Sample) -> float:
    """1 when the answer is just ``yes`` or ``no``, whichever is gold."""
    given = normalise(answer)
    return float(given in ("yes", "no") and given == normalise(sample.answers[0]))


def exact_case(answer: str, sample: Sample) -> float:
    """1 when the answer is the gold answer in any case: the publication's scoring of SFT."""
    return float(answer.strip().lower() == sample.answers[0].strip().lower())


def open_answer(answer: str, sample: Sample) -> float:
    """1 for the same words, or the same number, as one of the gold answers."""
    return max(exact(answer, sample), number(answer, sample))


def by_kind(answer: str, sample: Sample) -> float:
    """The matcher of the sample's answer kind, for tasks with several kinds of answers."""
    return KINDS.get(sample.kind, exact)(answer, sample)


KINDS: dict[str, Matcher] = {
    "letter": choice,
    "number": number,
    "yesno": yesno,
    "open": open_answer,
    "word": exact,
    "math": math,
}
MATCHERS: dict[str, Matcher] = {
    "exact": exact,
    "exact-case": exact_case,
    "letter": letter,
    "choice": choice,
    "number": number,
    "open": open_answer,
    "yesno": yesno,
    "by-kind": by_kind,
    "vqa": vqa.vqa,
    "vqa-evalai": vqa.vqa_evalai,
    "vqa-official": vqa.vqa_official,
    "math": math,
    "mathruler": mathruler,
    "gqa": official.gqa,
    "mmlu-pro": official.mmlu_pro,
    "mmlu-pro-1": official.mmlu_pro_1,
    "mmlu-pro-3": official.mmlu_pro_3,
    "mmmu": official.mmmu,
    "mmmu-official": official.mmmu_official,
    "pathvqa": official.pathvqa,
    "pope": official.pope,
    "pope-official": official.pope_official,
    "scienceqa": official.scienceqa,
}

AS_PUBLISHED = frozenset({"mathruler", "mmlu-pro-3", "mmmu-official", "pope-official"})
"""Graders kept as their authors published them although a reply can score without the answer."""

Parser = Callable[[str, Sample], str | None]

PARSERS: dict[str, Parser] = {
    "letter": lambda text, sample: m[1] if (m := _LETTER.fullmatch(normalise(text))) else None,
    "choice": parse_choice,
    "number": lambda text, sample: text if as_number(text) is not None else None,
    "yesno": lambda text, sample: t if (t := normalise(text)) in ("yes", "no") else None,
    "math": lambda text, sample: text if text in sample.answers else parse_math(text),
    "mmlu-pro": lambda text, sample: official.parse_mmlu_pro(text, 2),
    "mmlu-pro-1": lambda text, sample: official.parse_mmlu_pro(text, 1),
    "mmlu-pro-3": lambda text, sample: official.parse_mmlu_pro(text, 3),
    "pope": lambda text, sample: official.parse_pope(text),
    "pope-official": lambda text, sample: official.parse_pope(text),
    "scienceqa": official.parse_scienceqa,
}
"""What a grader takes an answer to say, where it can fail to find anything."""


def parse(grader: str, answer: str, sample: Sample) -> str | None:
    """What ``grader`` takes ``answer`` to say; None when it finds no answer of its kind in it."""
    if grader == "by-kind":
        grader = {"letter": "choice", "number": "number", "yesno": "yesno", "math": "math"}.get(
            sample.kind, "exact"
        )
    if grader in ("mmmu", "mmmu-official") and sample.kind == "letter":
        return official.parse_mmmu_letter(answer, sample)
    parser = PARSERS.get(grader)
    return parser(answer, sample) if parser else (answer.strip() or None)
