"""Matchers: (answer, sample) -> score in [0, 1]. Each compares the whole answer."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable

from cpt_bench.suite import Sample

Matcher = Callable[[str, Sample], float]

_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


def normalise(text: str) -> str:
    """Compatibility characters folded, lower case, single spaces, no full stop at the end."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(".").strip()


def exact(answer: str, sample: Sample) -> float:
    """1 when the answer equals one of the gold answers after :func:`normalise`."""
    given = normalise(answer)
    return float(any(given == normalise(gold) for gold in sample.answers))


def letter(answer: str, sample: Sample) -> float:
    """1 for the option's letter: ``C``, ``c``, ``(C)``, ``C.`` or ``C:``."""
    found = _LETTER.fullmatch(normalise(answer))
    return float(found is not None and found[1].upper() == sample.answers[0].strip().upper())


def number(answer: str, sample: Sample) -> float:
    """1 when the answer is a number equal to a gold one (relative tolerance 1e-6)."""
    given = as_number(answer)
    if given is None:
        return 0.0
    golds = (as_number(gold) for gold in sample.answers)
    return float(any(g is not None and math.isclose(given, g, rel_tol=1e-6) for g in golds))


def as_number(text: str) -> float | None:
    """The finite number that all of ``text`` spells, or None."""
    text = unicodedata.normalize("NFKC", text).strip()
    if not _NUMBER.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def yesno(answer: str, sample: Sample) -> float:
    """1 when the answer is just ``yes`` or ``no``, whichever is gold."""
    given = normalise(answer)
    return float(given in ("yes", "no") and given == normalise(sample.answers[0]))


def by_kind(answer: str, sample: Sample) -> float:
    """The matcher of the sample's answer kind, for tasks with several kinds of answers."""
    return KINDS.get(sample.kind, exact)(answer, sample)


KINDS: dict[str, Matcher] = {"letter": letter, "number": number, "yesno": yesno, "word": exact}
MATCHERS: dict[str, Matcher] = {
    "exact": exact,
    "letter": letter,
    "number": number,
    "yesno": yesno,
    "by-kind": by_kind,
}
