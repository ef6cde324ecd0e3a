"""The options of a multiple-choice question: their letters, and which of them is right."""

from __future__ import annotations

from cpt_bench.errors import CptBenchError
from cpt_bench.suite import Sample

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letters_of(sample: Sample, unknown: int = 26) -> str:
    """The letters of the sample's options; the first ``unknown`` letters if there are no options.

    A letter beyond them is not an answer: 'H. pylori causes it' does not choose option H.
    """
    return LETTERS[: len(sample.choices) or unknown]


def gold_letter(sample: Sample) -> str:
    """The letter of the right option, which the gold gives as a letter or as the option's text.

    Raises:
        CptBenchError: The gold names none of the options, so that no reply could be right.
    """
    given = sample.answers[0].strip()
    letter, letters = given.upper(), letters_of(sample)
    if len(letter) == 1 and letter in letters:
        return letter
    options = [option.strip().casefold() for option in sample.choices[: len(LETTERS)]]
    if given and options.count(given.casefold()) == 1:
        return LETTERS[options.index(given.casefold())]
    there = f"the options {', '.join(letters)}" if sample.choices else "the letters A to Z"
    raise CptBenchError(
        f"the gold answer of {sample.id!r} is {given[:60]!r}, which names none of {there}",
        todo="Give the right option's letter, or exactly its words",
    )


def gold_yes_no(sample: Sample) -> str:
    """``yes`` or ``no``, whichever is right.

    Raises:
        CptBenchError: The gold is neither, so that no reply could be right.
    """
    gold = sample.answers[0].strip().lower().removesuffix(".")
    if gold in ("yes", "no"):
        return gold
    raise CptBenchError(
        f"the gold answer of {sample.id!r} is {gold[:60]!r}, neither yes nor no",
        todo="Correct it, or choose another grader",
    )
