"""The general probes of gym: what no trainer sees, and what may be lost to a new habit."""

from __future__ import annotations

import random

from cpt_bench.suite import Sample
from cpt_bench.tasks.gym.facts import CAPITALS, ELEMENTS, NAMES, OPPOSITES


def make(split: str, n: int, probe: str, seed: int) -> list[Sample]:
    """The first ``n`` samples of a probe, in an order that the seed gives.

    Args:
        split: ``test``; a probe has no other.
        n: How many.
        probe: One of :data:`PROBES`.
        seed: Of the order.
    """
    drafts = PROBES[probe]()
    random.Random(f"gym {seed} {probe} {split}").shuffle(drafts)
    return [
        Sample(id=f"{probe}-{name}", question=question, answers=golds, kind=kind)
        for name, question, golds, kind in drafts[:n]
    ]


Draft = tuple[str, str, tuple[str, ...], str]
"""A sample's name, question, golds and answer kind."""


def _golds(name: str) -> tuple[str, ...]:
    return NAMES.get(name, (name,))


def _capitals() -> list[Draft]:
    return [
        (_id(country), f"What is the capital of {country}?", _golds(capital), "word")
        for country, capital in CAPITALS.items()
    ]


def _symbols() -> list[Draft]:
    return [
        (symbol, f"What is the chemical symbol of {name}?", (symbol,), "word")
        for symbol, name in ELEMENTS.items()
    ]


def _opposites() -> list[Draft]:
    return [
        (word, f"What is the opposite of {word}?", tuple(golds.split(", ")), "word")
        for word, golds in OPPOSITES.items()
    ]


def _digits() -> list[Draft]:
    return [
        (str(n), f"Write the number {in_words(n)} in digits.", (str(n),), "number")
        for n in range(100)
    ]


ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(n: int) -> str:
    """A number below 100 in words."""
    if n < len(ONES):
        return ONES[n]
    tens, ones = divmod(n, 10)
    return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


PROBES = {"capitals": _capitals, "symbols": _symbols, "opposites": _opposites, "digits": _digits}
"""Facts of two kinds, words and numbers: what makes each probe."""
