"""Two tasks made by functions of a seed: the source of the example suite's cards."""

from __future__ import annotations

import random

from cpt_bench.suite import Sample


def make(split: str, n: int, *, task: str) -> list[Sample]:
    """The ``n`` samples of a split, always the same; no question is in both splits."""
    chance = random.Random(f"{task}/{split}")
    samples: dict[str, Sample] = {}
    while len(samples) < n:
        if task == "sums":
            a, b = chance.randrange(10, 50), chance.randrange(10, 50)
            question, answer, kind = f"what is {a} + {b}?", str(a + b), "number"
            side = (a + b) % 2
        else:
            one, two = chance.sample("abcdefghijklmnopqrstuvwxyz", 2)
            question, answer, kind = f"which is first, {one} or {two}?", min(one, two), "word"
            side = (ord(one) + ord(two)) % 2
        if side == (split == "test"):  # a question belongs to one of the splits, by its own words
            name = f"{task}-{split}-{len(samples)}"
            sample = Sample(id=name, question=question, answers=(answer,), kind=kind)
            samples.setdefault(question, sample)
    return list(samples.values())
