"""The natural reading: the answer of a reply in plain words, and replies that only tempt."""

from __future__ import annotations

import pytest

from cpt_bench.grading import find_matcher, grade
from cpt_bench.grading.natural import read_natural
from cpt_bench.suite import AnswerForm, Sample

FORM = AnswerForm(kind="natural", open="The answer is ", close=".")


def graded(reply: str, gold: str = "12", kind: str = "number", grader: str = "open"):  # type: ignore[no-untyped-def]
    sample = Sample(id="x", question="?", answers=(gold,), kind=kind)
    return grade(reply, sample, FORM, find_matcher(grader))


@pytest.mark.parametrize(
    ("reply", "kind", "answer"),
    [
        ("The answer is 12.", "number", "12"),
        ("the final answer is: **12**", "number", "12"),
        ("Answer: 12", "number", "12"),
        ("5 + 7 = 12", "number", "12"),
        ("The answer is 5 + 7 = 12.", "number", "12"),
        ("The answer is 3. Wait. The answer is 12.", "number", "12"),
        ("The answer to 5 + 7 is 12.", "number", "12"),
        ("There are 3 red and 9 blue ones, so there are 12 balls.", "number", "12"),
        ("The answer is 1,234.", "number", "1234"),
        ("The answer is −12.", "number", "-12"),
        ("The answer is 0.5.", "number", "0.5"),
        ("The answer is $12.", "number", "12"),
        ("The answer is\n\n12", "number", "12"),
        ("The answer to this question is: Dan", "word", "Dan"),
        ("The answer is \"Dan\".", "word", "Dan"),
        ("The capital of France is Paris.", "word", "Paris"),
        ("The answer is never.", "word", "never"),
        ("O'Hara-Smith", "word", "O'Hara-Smith"),
        ("The answer is No. It does not follow.", "yesno", "No"),
        ("No, it does not follow.", "yesno", "No"),
        ("The answer is true.", "yesno", "True"),
        ("The answer is apple, bee, cat.", "line", "apple, bee, cat"),
        ("Sorted:\napple, bee, cat", "line", "apple, bee, cat"),
        ("The answer is [1, 2, 3].", "line", "[1, 2, 3]"),
        ("  Deep blue water. ", "whole", "Deep blue water."),
    ],
)  # fmt: skip
def test_what_a_person_would_take_for_the_answer(reply: str, kind: str, answer: str) -> None:
    assert read_natural(reply, kind) == answer


TEMPTING = [
    ("The answer is 12 or 13.", "number", "12"),  # two answers
    ("The answer is 13 or 12.", "number", "12"),
    ("It is between 11 and 12", "number", "12"),
    ("The answer is not 12.", "number", "12"),  # denied
    ("It is 13, and not 12", "number", "12"),
    ("12 is too small. The answer is 13.", "number", "12"),  # named before the answer
    ("The answer is 12. No: the answer is 13.", "number", "12"),  # changed
    ("The answer is 112.", "number", "12"),  # part of another number
    ("The answer is 12.5.", "number", "12"),
    ("The answer is x12.", "number", "12"),
    ("The answer is 1 2.", "number", "12"),
    ("12 + 1 = 13", "number", "12"),
    ("Is it 12? I do not know.", "yesno", "Yes"),
    ("The answer is Yes and No.", "yesno", "Yes"),
    ("Yes or no?", "yesno", "Yes"),
    ("The answer is Paris or Lyon.", "word", "Paris"),
    ("It is not Paris", "word", "Paris"),
    ("The answer is not Paris.", "word", "Paris"),
    ("The answer is never, Paris.", "word", "Paris"),
    ("Paris is not the capital, Lyon is", "word", "Paris"),
    ("The answer is Parisian.", "word", "Paris"),
    ("The answer is apple, bee, cat, apple, cat, bee.", "line", "apple, bee, cat"),
    ("The answer is ", "number", "12"),
    ("", "number", "12"),
]


@pytest.mark.parametrize(("reply", "kind", "gold"), TEMPTING)
def test_wrong_but_tempting_replies_earn_nothing(reply: str, kind: str, gold: str) -> None:
    assert graded(reply, gold, kind).score == 0
    assert graded(f"The answer is {gold}.", gold, kind).score == 1


def test_the_form_is_judged_apart_from_the_answer() -> None:
    assert graded("The answer is 12.")[:3] == (1, "12", True)
    assert graded("12")[:3] == (1, "12", False)
    assert graded("The answer is 13.")[:3] == (0, "13", True)
    assert graded("The answer is 12.\n\nI like sums.")[:3] == (1, "12", False)


def test_the_best_reading_finds_an_answer_in_tags_too() -> None:
    got = graded("Of 13 and 14: <answer>12</answer> out of 20")
    assert (got.score, got.lenient) == (0, 1)


@pytest.mark.parametrize(
    ("reply", "words", "right"),
    [("Deep blue water.", 3, True), ("Deep, blue, well-lit", 3, True), ("Blue!", 1, True),
     ("Deep blue", 3, False), ("The sea is deep", 3, False), ("", 1, False), ("...", 1, False)],
)  # fmt: skip
def test_words_are_counted(reply: str, words: int, right: bool) -> None:
    assert graded(reply, str(words), "whole", "word-count").score == right


@pytest.mark.parametrize(
    ("reply", "score"), [("12", 1), (" 12 ", 1), ("x = 12", 2 / 6), ("1 2", 0), ("", 0)]
)
def test_a_gold_answer_among_other_text_earns_its_share(reply: str, score: float) -> None:
    sample = Sample(id="x", question="?", answers=("12",), kind="line")
    assert find_matcher("answer-within")(reply, sample) == pytest.approx(score)


def test_reading_a_long_reply_takes_time_that_grows_with_its_length_alone() -> None:
    for reply in (
        "answer " * 20_000,
        "1 or " * 20_000,
        "12 " * 20_000,
        "x" * 100_000,
        "-" * 50_000,
    ):
        for kind in ("number", "yesno", "word", "line", "whole"):
            read_natural(reply, kind)
