"""Refuses a suite whose test questions are in its train splits, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

from cpt_bench.errors import CptBenchError
from cpt_bench.sources.leakage import Leak, files, leaks, repeated, some
from cpt_bench.sources.loading import load_split, questions_of
from cpt_bench.suite import Sample, Suite, TaskCard
from cpt_bench.suite.columns import Files
from cpt_bench.suite.origins import Hub

APART = (
    "Take both splits from one table with draw, or leave the rows out with source.where; "
    "where they are published so, declare splits.test.in_train: {n}"
)
"""What to do about test questions in train."""


def require_apart(suite: Suite, tell: Callable[[str], None] = lambda line: None) -> None:
    """Look for test questions in the train splits of a suite whose cards declare their data.

    Only declared data are looked at: what a package makes by code is as its authors checked it, and
    what other generators make is compared when it is made (:func:`require_questions_apart`).

    Args:
        suite: The suite.
        tell: Receives a line where a task trains on questions that another one tests.

    Raises:
        CptBenchError: A task's own train split has questions of its test split.
    """
    cards = [card for card in suite.cards.values() if declared(card)]
    train = {c.name: load_split(c, "train") for c in cards if c.name in suite.sequence}
    test = {c.name: questions_of(c) for c in cards if "test" in c.splits}
    for card in cards:
        if card.name in train:
            require_questions_apart(card, train[card.name], test[card.name])
    for line in across(train, test):
        tell(line)


def declared(card: TaskCard) -> bool:
    """Whether a card says where its data are and which columns hold what."""
    return isinstance(card.source, Files) or (
        isinstance(card.source, Hub) and card.source.map is not None
    )


def require_questions_apart(card: TaskCard, train: list[Sample], test: list[Sample]) -> None:
    """Raise an error if a task's train split has more of its test questions than it declares."""
    found = repeated(train, test)
    if len(found) > card.splits["test"].in_train:
        raise CptBenchError(
            f"{len(found)} test questions are in train too ({some(found)})",
            where=f"task {card.name}",
            todo=APART.format(n=len(found)),
        )


def across(train: dict[str, list[Sample]], test: dict[str, list[Sample]]) -> list[str]:
    """A line for each task that trains on questions of another one's test split."""
    lines = []
    for tested, asked in test.items():
        for trained, learned in train.items():
            if tested != trained and (found := repeated(learned, asked)):
                lines.append(
                    f"{len(found)} test questions of {tested} are in the train split of {trained} "
                    f"({some(found)})"
                )
    return lines


def prepared_leaks(card: TaskCard) -> Leak:
    """What the prepared splits of a card share; pictures are compared by their files."""
    return leaks(load_split(card, "train"), load_split(card, "test"), files)
