"""The general probes of gym: what no trainer sees, and what may be lost to a new habit."""

from __future__ import annotations

import random

from cpt_bench.suite import Sample
from cpt_bench.tasks.gym.facts import CAPITALS, ELEMENTS, NAMES


def make(split: str, n: int, probe: str, seed: int) -> list[Sample]:
    """The first ``n`` samples of a probe, in an order that the seed gives.

    Args:
        split: ``test``; a probe has no other.
        n: How many.
        probe: ``capitals``, ``elements`` or ``form``.
        seed: Of the order.
    """
    drafts = {"capitals": _capitals, "elements": _elements, "form": _form}[probe]()
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


def _elements() -> list[Draft]:
    return [
        (symbol, f"Which chemical element has the symbol {symbol}?", _golds(name), "word")
        for symbol, name in ELEMENTS.items()
    ]


def _form() -> list[Draft]:
    return [
        (_id(f"{count}-{thing}"), f"Describe {thing} in exactly {words}.", (str(count),), "whole")
        for count, words in WORDS.items()
        for thing in THINGS
    ]


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


WORDS = {1: "one word", 2: "two words", 3: "three words"}
THINGS = (
    "the sea", "a cat", "the moon", "winter", "a river", "bread", "fire", "music", "a mountain",
    "rain", "gold", "night", "a tree", "summer", "a horse", "ice", "coffee", "the wind",
    "a library", "the sun", "a rose", "snow", "honey", "a child", "the desert", "a storm", "silk",
    "the forest", "a city", "sleep",
)  # fmt: skip
