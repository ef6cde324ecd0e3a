"""What train and test splits of a suite have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cpt_bench.advice.again import Finding
from cpt_bench.sources.apart import APART, across
from cpt_bench.sources.leakage import leaks, some
from cpt_bench.suite import Sample, Suite, TaskCard

Splits = dict[str, list[Sample]]
"""Split to its samples."""


def apart(card: TaskCard, train: Sequence[Sample], test: Sequence[Sample]) -> Iterator[Finding]:
    """Whether a task's own splits share questions or pictures."""
    found, allowed = leaks(train, test), card.splits["test"].in_train
    n = len(found.questions)
    if n:
        what = f"{n} test questions are in train too ({some(found.questions)})"
        if n > allowed:
            yield Finding(card.name, False, what, APART.format(n=n))
        else:
            yield Finding(card.name, None, f"{what}, as its card declares")
    if found.pictures:
        what = (
            f"{len(found.pictures)} test questions show a picture of train ({some(found.pictures)})"
        )
        yield Finding(card.name, None, what, "Draw by picture: draw: {seed: 0, by: IMAGE_COLUMN}")
    if not found.questions and not found.pictures:
        yield Finding(card.name, True, "train and test have no question and no picture in common")


def across_tasks(suite: Suite, made: Mapping[str, Splits]) -> Iterator[Finding]:
    """Test questions that another task trains on: they are learned, or rehearsed, there."""
    test = {name: splits["test"] for name, splits in made.items() if "test" in splits}
    train = {n: made[n]["train"] for n in suite.sequence if "train" in made.get(n, {})}
    for line in across(train, test):
        cure = "Leave them out with source.where, or name this in the suite's description"
        yield Finding(suite.name, None, line, cure)
