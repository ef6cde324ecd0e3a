"""Checks of each sample of a published data set, made when the data is prepared.

A question without its picture, or with a gold answer that no reply can match, would go unnoticed
in a run: it lowers every method's numbers alike. So it is refused here, with the sample's id.
"""

from __future__ import annotations

from cpt_bench.errors import CptBenchError
from cpt_bench.suite import Sample
from cpt_bench.suite.columns import Columns
from cpt_bench.suite.origins import HubSplit

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def check_sample(
    sample: Sample,
    source: HubSplit,
    kinds: tuple[str, ...],
    where: str,
    columns: Columns | None = None,
) -> None:
    """Refuse a sample that cannot be asked or graded as its card declares.

    Args:
        sample: The sample that was made from a row.
        source: The card's declaration of its split.
        kinds: The card's answer kinds.
        where: The data set, for errors.
        columns: The card's map, which may name the columns of pictures.

    Raises:
        CptBenchError: The message names the sample and its problem.
    """
    pictured = has_pictures(source) or bool(columns and columns.images)
    problem = problem_of(sample, pictured and not source.no_picture, kinds)
    if problem:
        raise CptBenchError(problem, where=f"{where}, {sample.id}", todo=TODO)


TODO = "Correct the row, or have the card's adapter leave it out"


def problem_of(sample: Sample, pictured: bool, kinds: tuple[str, ...]) -> str:
    """The problem with a sample; empty if there is none.

    Args:
        sample: The sample.
        pictured: Whether it must have a picture.
        kinds: The card's answer kinds.
    """
    if pictured and not len(sample.images):
        return "the question has no picture"
    if not sample.question.strip():
        return "the question is empty"
    if any(not answer.strip() for answer in sample.answers):
        return "a gold answer is empty"
    if sample.kind not in kinds:
        return f"its answer is of kind {sample.kind!r}; the card has {', '.join(kinds)}"
    if sample.kind == "letter":
        known = LETTERS[: len(sample.choices)]
        for gold in sample.answers:
            if len(gold) != 1 or gold not in known:
                return f"the gold answer {gold!r} names none of its {len(known)} options"
    if sample.kind == "yesno" and sample.answers[0].strip().lower() not in ("yes", "no"):
        return f"the gold answer {sample.answers[0]!r} is neither yes nor no"
    return ""


def has_pictures(source: HubSplit) -> bool:
    """Whether the table of a split has any pictures."""
    named = any("image" in kind for kind in source.columns.values())
    return source.join is not None or named
