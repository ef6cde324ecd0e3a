"""Matchers: (answer, sample) -> score in [0, 1]. Each compares the whole answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isclose

from cpt_bench.errors import CptBenchError
from cpt_bench.grading import official, vqa
from cpt_bench.grading.formulas import parse_math
from cpt_bench.grading.numbers import as_number
from cpt_bench.grading.options import LETTERS, gold_letter, gold_yes_no, letters_of
from cpt_bench.grading.symbolic import math, mathruler
from cpt_bench.sources import reasoning_gym as gym
from cpt_bench.suite import Sample

Matcher = Callable[[str, Sample], float]

_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_MARKED = re.compile(r"\(?([A-Za-z])[).:] ?(.+)", re.DOTALL)


@lru_cache(maxsize=4096)  # the same gold answers and short replies occur many times
def normalise(text: str) -> str:
    """Compatibility characters folded, lower case, single spaces, no full stop at the end."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(".").strip()


def exact(answer: str, sample: Sample) -> float:
    """1 when the answer equals one of the gold answers, both normalised."""
    given = normalise(answer)
    for gold in sample.answers:
        # Full stops alone normalise to empty text, which is not an answer.
        if given == normalise(gold) and (given or answer.strip() == gold.strip() != ""):
            return 1.0
    return 0.0


def letter(answer: str, sample: Sample) -> float:
    """1 for the option's letter: ``C``, ``c``, ``(C)``, ``C.`` or ``C:``."""
    return float(_lone_letter(answer) == gold_letter(sample))


def _lone_letter(text: str) -> str | None:
    found = _LETTER.fullmatch(normalise(text))
    return found[1].upper() if found else None


def choice(answer: str, sample: Sample) -> float:
    """1 for the option's letter, its words, or both: ``C``, ``(C) a cat``, ``a cat``."""
    return float(parse_choice(answer, sample) == gold_letter(sample))


def parse_choice(answer: str, sample: Sample) -> str | None:
    """The letter that the entire ``answer`` names; None if it names none, or more than one.

    An option's text takes precedence over letters: if the options are blood groups, O is an option.
    """
    text = normalise(answer)
    lone = _LETTER.fullmatch(text)
    words = [normalise(option) for option in sample.choices]
    for given in (text, lone[1] if lone else ""):
        same = [x for x, option in zip(LETTERS, words, strict=False) if option and option == given]
        if same:
            return same[0] if len(same) == 1 else None
    if lone is not None:
        return found if (found := lone[1].upper()) in letters_of(sample) else None
    marked = _MARKED.fullmatch(text)
    if marked is not None:
        letter_given, rest = marked[1].upper(), marked[2]
        place = LETTERS.find(letter_given)
        if 0 <= place < len(words) and words[place] == rest.strip():
            return letter_given
    return None


def number(answer: str, sample: Sample) -> float:
    """1 when the answer is a number equal to a gold one (relative tolerance 1e-6)."""
    if not any(as_number(gold) is not None for gold in sample.answers):
        raise CptBenchError(
            f"the gold answer of {sample.id!r} is {sample.answers[0][:60]!r}, not a number",
            todo="Correct it, or choose another grader",
        )
    return _same_number(answer, sample)


def _same_number(answer: str, sample: Sample) -> float:
    given = as_number(answer)
    if given is None:
        return 0.0
    golds = (as_number(gold) for gold in sample.answers)
    return float(any(g is not None and isclose(given, g, rel_tol=1e-6) for g in golds))


def yesno(answer: str, sample: Sample) -> float:
    """1 when the answer is just ``yes`` or ``no``, whichever is gold."""
    return float(normalise(answer) == gold_yes_no(sample))


def exact_case(answer: str, sample: Sample) -> float:
    """1 when the answer is the gold answer in any case: the publication's scoring of SFT."""
    return float(answer.strip().lower() == sample.answers[0].strip().lower())


def open_answer(answer: str, sample: Sample) -> float:
    """1 for the same words, or the same number, as one of the gold answers."""
    return max(exact(answer, sample), _same_number(answer.strip().removesuffix("."), sample))


def by_kind(answer: str, sample: Sample) -> float:
    """The matcher of the sample's answer kind, for tasks with several kinds of answers."""
    return KINDS.get(sample.kind, exact)(answer, sample)


def reasoning_gym_partial(answer: str, sample: Sample) -> float:
    """The score of the package ``reasoning-gym``, as published: with part credit, in [0, 1]."""
    return gym.score(answer, sample.id, sample.answers[0])


def reasoning_gym(answer: str, sample: Sample) -> float:
    """1 where the package ``reasoning-gym`` gives its full score; part credit is 0."""
    return float(reasoning_gym_partial(answer, sample) >= 1)


def answer_within(answer: str, sample: Sample) -> float:
    """1 for the gold answer; with other text around it, the gold's share of the characters."""
    text, gold = answer.strip(), sample.answers[0]
    if text == gold:
        return 1.0
    return len(gold) / len(text) if gold and gold in text else 0.0


def word_count(answer: str, sample: Sample) -> float:
    """1 when the answer has exactly as many words as the gold, a number, asks for."""
    asked = sample.answers[0]
    if not (asked.isascii() and asked.isdigit()):
        raise CptBenchError(f"the gold answer {asked[:40]!r} is not a number of words")
    return float(str(len(_WORDS.findall(answer))) == asked.lstrip("0"))


_WORDS = re.compile(r"[^\W_]+(?:['’.,-][^\W_]+)*")

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
    "reasoning-gym": reasoning_gym,
    "reasoning-gym-partial": reasoning_gym_partial,
    "answer-within": answer_within,
    "word-count": word_count,
}

AS_PUBLISHED = frozenset(
    {
        "mathruler",
        "mmlu-pro-3",
        "mmmu-official",
        "pope-official",
        "reasoning-gym-partial",
        "answer-within",
    }
)
"""Graders that are as published, although a reply can score without giving the answer."""

Parser = Callable[[str, Sample], str | None]


def _an_option(letter: str | None, sample: Sample) -> str | None:
    return letter if letter is not None and letter in letters_of(sample) else None


PARSERS: dict[str, Parser] = {
    "letter": lambda text, sample: _an_option(_lone_letter(text), sample),
    "choice": parse_choice,
    "number": lambda text, sample: text if as_number(text) is not None else None,
    "yesno": lambda text, sample: t if (t := normalise(text)) in ("yes", "no") else None,
    "math": lambda text, sample: text if text in sample.answers else parse_math(text),
    "mmlu-pro": lambda text, sample: _an_option(official.parse_mmlu_pro(text, 2), sample),
    "mmlu-pro-1": lambda text, sample: _an_option(official.parse_mmlu_pro(text, 1), sample),
    "mmlu-pro-3": lambda text, sample: _an_option(official.parse_mmlu_pro(text, 3), sample),
    "pope": lambda text, sample: official.parse_pope(text),
    "pope-official": lambda text, sample: official.parse_pope_official(text),
    "scienceqa": official.parse_scienceqa,
}
"""How a grader reads an answer, for graders that may fail to find one."""


def package_of(grader: str, kinds: Sequence[str]) -> str | None:
    """The module that a grader compares answers with, which may not be installed; None: none.

    Args:
        grader: Its name.
        kinds: The kinds of answers that it grades, which choose the grader under ``by-kind``.
    """
    if grader == "mathruler":
        return grader
    return "math_verify" if grader == "math" or (grader == "by-kind" and "math" in kinds) else None


def parse(grader: str, answer: str, sample: Sample) -> str | None:
    """The answer that ``grader`` reads from ``answer``; None if it finds none of its kind."""
    if grader == "by-kind":
        grader = {"letter": "choice", "number": "number", "yesno": "yesno", "math": "math"}.get(
            sample.kind, "exact"
        )
    if grader in ("mmmu", "mmmu-official") and sample.kind == "letter":
        return official.parse_mmmu_letter(answer, sample)
    parser = PARSERS.get(grader)
    return parser(answer, sample) if parser else (answer.strip() or None)
