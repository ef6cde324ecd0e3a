"""Questions of words alone: sums of two digits, the last letter of a word, and which number is larger."""

from __future__ import annotations

import random

from cpt_bench.suite import Sample

NAMES = ("river", "stone", "cloud", "table", "green", "horse", "light", "paper", "sugar", "wagon")


def make(split: str, n: int, task: str) -> list[Sample]:
    """The first ``n`` questions of a split."""
    made = []
    for i in range(n):
        rng = random.Random(f"{task} {split} {i}")
        a, b = rng.randrange(10), rng.randrange(10)
        name = rng.choice(NAMES)
        question, answer, kind = {
            "sums": (f"what is {a} plus {b}?", str(a + b), "number"),
            "letters": (f"what is the last letter of {name}?", name[-1], "word"),
            "larger": (f"which is larger, {a} or {b + 10}?", str(b + 10), "number"),
        }[task]
        made.append(
            Sample(id=f"{task}-{split}-{i}", question=question, answers=(answer,), kind=kind)
        )
    return made
