r"""The scorer of MRCL (arXiv 2607.04364), written from what its repository's scorer does.

A reply's answer is its last box, or all of it. Parts divided by semicolons earn their share in
order. A part is right when math-verify finds it equal, or when it is the same text without case,
spaces, and the signs ``\\ , ; { } $``. FinMME: a set of letters equal to gold earns 1, a part of
it 0.5; a number within the row's tolerance is right.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.grading.reading import read_boxed
from cpt_bench.suite import Sample

LONGEST = 1000
"""Characters beyond which an answer is compared as text alone."""

SECONDS = 5
"""For one formula, where a time limit can be set: in a main thread."""

_NAMED = re.compile(
    r"^(\s*(?:\$\$?)?)\s*(?:f\s*\(\s*x\s*\)|y|f\s*\\left\(\s*x\s*\\right\))\s*=\s*(?![^=]*=)", re.I
)
_OPTION = re.compile(r"\s*([A-Za-z])\s*:")
_QUADRANTS = {"I": "First", "II": "Second", "III": "Third", "IV": "Fourth"}
_DROPPED = str.maketrans("", "", "\\,; {}$")


def extract(reply: str) -> str:
    """The answer in a reply: its last box, else all of it; of ``B: a dog`` the letter."""
    found = (read_boxed(reply) or "").strip() or reply
    option = _OPTION.match(found)
    return option[1] if option else found


def parts(reply: str, sample: Sample) -> float:
    """The share of the gold answer's parts that are right, in order."""
    gold = _split(sample.answers[0]) or [sample.answers[0]]
    given = _split(extract(reply))
    right = sum(same(g, a) for g, a in zip(gold, given, strict=False))
    return right / len(gold)


def finmme(reply: str, sample: Sample) -> float:
    """1 for the same set of letters or a number within the tolerance, 0.5 for a part of the set."""
    gold, given = sample.answers[0], extract(reply)
    if "," in gold:
        wanted, found = _options(gold), _options(given)
        return 1.0 if wanted == found else 0.5 if found and found < wanted else 0.0
    return float(same(gold, given, float(sample.category) if sample.category else None))


def same(gold: str, given: str, tolerance: float | None = None) -> bool:
    """Whether one part is right."""
    gold, given = (_NAMED.sub(r"\1", text) for text in (gold, given))
    gold, given = (_QUADRANTS.get(text.strip(), text) for text in (gold, given))
    if max(len(gold), len(given)) <= LONGEST and _equal(gold, given):
        return True
    wanted, found = (text.lower().translate(_DROPPED) for text in (gold, given))
    if wanted == found:
        return True
    try:
        return tolerance is not None and abs(float(found) - float(wanted)) <= tolerance
    except ValueError:
        return False


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _options(text: str) -> set[str]:
    return {option.strip() for option in text.split(",") if option.strip()}


def _equal(gold: str, given: str) -> bool:
    try:
        from latex2sympy2_extended import NormalizationConfig
        from math_verify import LatexExtractionConfig, parse, verify
    except ModuleNotFoundError as error:
        todo = "Install it with: pip install 'cptbench[grade]'"
        raise CptBenchError(f"this grader needs {error.name}", where="mrcl", todo=todo) from None
    limit = SECONDS if threading.current_thread() is threading.main_thread() else None
    plain: Any = NormalizationConfig(
        nits=True, malformed_operators=False, basic_latex=True, boxed=False, units=True
    )
    config = LatexExtractionConfig(
        normalization_config=plain, boxed_match_priority=0, try_extract_without_anchor=True
    )
    try:
        wanted = parse(gold, extraction_mode="first_match", parsing_timeout=limit)
        if not wanted:
            return False
        found = parse(
            f"${given}$",
            extraction_config=[config],
            extraction_mode="first_match",
            parsing_timeout=limit,
        )
        return bool(verify(wanted, found, timeout_seconds=limit))
    except Exception:  # the publication's scorer takes any failure for "not equal"
        return False
