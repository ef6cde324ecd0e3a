"""cpt7's graders: the cases their definitions name, and ten thousand replies that must earn nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt_bench.errors import CptBenchError
from cpt_bench.grading import (
    AS_PUBLISHED,
    MATCHERS,
    find_matcher,
    grade,
    official,
    reward,
    symbolic,
)
from cpt_bench.grading.matchers import parse
from cpt_bench.grading.reading import has_boxed_form, read_boxed
from cpt_bench.grading.summary import Graded, summarise
from cpt_bench.grading.vqa import normalise_evalai, normalise_official, soft_accuracy
from cpt_bench.suite import AnswerForm, RewardWeights, Sample, open_suite

Cli = Callable[..., subprocess.CompletedProcess[str]]


def sample(
    *golds: str, kind: str = "word", choices: tuple[str, ...] = (), annotators: tuple[str, ...] = ()
) -> Sample:
    return Sample(
        id="s", question="?", answers=golds, kind=kind, choices=choices, annotators=annotators
    )


def ten(*answers: str) -> Sample:
    return sample(answers[0], annotators=(*answers, *(["zzz"] * (10 - len(answers)))))


# ------------------------------------------------------------------------------ VQA


@pytest.mark.parametrize(
    ("text", "official", "evalai"),
    [
        ("10.", "10", "10"),
        ("St. John's", "st john's", "st john 's"),
        ("it's", "it's", "it 's"),
        ("1,000", "1000", "1000"),
        ("two", "2", "2"),
        ("Coca-Cola", "coca cola", "coca cola"),
        ("U.S.A.", "usa", "usa"),
        ("None", "0", "0"),
        ("the", "", ""),
        ("a/b", "b", "b"),
        ("$5.00", "$5.00", "$5.00"),
        ("10:30", "10:30", "10:30"),
        ("dont", "don't", "don't"),
        ("couldnt've", "couldn't've", "couldn't've"),
        ("y'alldve yall'd've", "y'alldve y'all'd've", "y'alldve y'all'd've"),  # one apostrophe, not two
        ("somebody'd", "somebodyd", "somebodyd"),  # the published table's slip
        ("two\nsmall\tdogs!", "2 small dogs", "2 small dogs"),
        ("one, two", "1 2", "1 2"),
        ("3 . 5", "3  5".replace("  ", " "), "3 5"),  # the typo in the look-behind drops it
        ("an apple a day", "apple day", "apple day"),
        ("x-ray (chest)", "x ray chest", "x ray chest"),
    ],
)  # fmt: skip
def test_official_normalisation(text: str, official: str, evalai: str) -> None:
    assert normalise_official(text) == official
    assert normalise_evalai(text) == evalai


def test_soft_accuracy_is_the_mean_over_ten_leave_one_out_sets() -> None:
    """Against the definition, spelled out: 0, .3, .6, .9, 1 and not min(n / 3, 1)."""
    for agreeing in range(11):
        annotators = ["x"] * agreeing + ["y"] * (10 - agreeing)
        spelled = sum(
            min(1, (annotators[:i] + annotators[i + 1 :]).count("x") / 3) for i in range(10)
        )
        assert soft_accuracy("x", annotators) == pytest.approx(spelled / 10)
    assert [round(soft_accuracy("x", ["x"] * k + ["y"] * (10 - k)), 2) for k in range(5)] == [
        0, 0.3, 0.6, 0.9, 1.0,
    ]  # fmt: skip


def test_soft_accuracy_of_few_annotators() -> None:
    """One who agrees with the only annotator is right; three make an answer right, as of ten."""
    for n in range(1, 10):
        found = [soft_accuracy("x", ["x"] * k + ["y"] * (n - k)) for k in range(n + 1)]
        assert found == [min(1, k / min(3, n)) for k in range(n + 1)]


@pytest.mark.parametrize("name", ["vqa", "vqa-official", "vqa-evalai"])
def test_answers_that_normalise_to_nothing_are_compared_as_they_stand(name: str) -> None:
    for gold in ("a", "The", "?"):
        mixed = sample(gold, annotators=(gold,) * 9 + ("dog",))
        assert MATCHERS[name](gold.lower(), mixed) == 1
        assert MATCHERS[name]("an", mixed) == MATCHERS[name]("", mixed) == 0


def test_annotators_are_compared_as_each_evaluation_has_it() -> None:
    same = sample("Stop.", annotators=("Stop.",) * 10)
    assert MATCHERS["vqa"]("stop", same) == 1
    assert MATCHERS["vqa-official"]("stop", same) == 0  # raw text when all agree
    assert MATCHERS["vqa-official"]("Stop.", same) == 1
    mixed = ten("Stop.", "stop", "STOP", "go")
    assert MATCHERS["vqa-official"]("stop", mixed) == pytest.approx(0.9)
    assert MATCHERS["vqa-evalai"]("the stop", mixed) == pytest.approx(0.9)
    assert MATCHERS["vqa"]("the", sample("a", annotators=("a",) * 10)) == 0  # nothing is no answer
    assert MATCHERS["vqa"]("unknown", ten("no", "no", "no", "no")) == 0


def test_grading_twice_gives_the_same() -> None:
    """Some published scorers change the gold they are given."""
    gold = ten("Two", "2", "two dogs")
    assert [MATCHERS["vqa"]("two", gold) for _ in range(3)] == pytest.approx([0.6] * 3)


# --------------------------------------------------------------------------- formulas

MATH = [
    ("2 \\sqrt { 221 }", ["2\\sqrt{221}", "$2\\sqrt{221}$", "\\sqrt{884}"], ["29.73", "\\sqrt{221}", "2221"]),
    ("4 \\frac { 4 } { 11 }", ["48/11", "4\\frac{4}{11}", "\\frac{48}{11}"], ["44/11", "4.36", "4 4 11"]),
    ("5", ["5", "5.0", "x=5", "(5)", "5^\\circ", " 5. "], ["5 or 6", "about 5", "5,6", "55", "five", "", "6", "-5"]),
    ("\\frac { 1 } { 2 }", ["0.5", "1/2", ".5"], ["2", "1", "1 2", "0.51"]),
    ("8 \\pi", ["8\\pi", "8π", "\\pi \\cdot 8"], ["25.13", "8", "\\pi"]),
    ("1234", ["1,234"], ["1,2,34", "123"]),
    # What is no LaTeX is read as it is meant, and never as the number it begins with.
    ("6", ["√36", "sqrt(36)", "2·3", "∠A = 6", "m∠ABC=6"],
     ["6√3", "6 sqrt(3)", "6pi", "6·3", "6√((3))", "6\\sqrt", "6\\text{3}", "6\\mathrm{ m 3}"]),
    ("18", ["6(3)", "6\\left(3\\right)"], ["6 3"]),
    ("9", ["3(1+2)"], ["6(3)", "6\\left(3\\right)"]),
    ("6 \\sqrt 3", ["6√3", "6 √(3)", "6sqrt(3)", "6*sqrt 3", "√108", "6\\sqrt{3}"], ["6", "√3"]),
    ("12 \\pi", ["12pi", "12 π", "12*pi"], ["12", "12p", "12ip"]),
    ("4 \\frac { 4 } { 11 }", ["4 4/11", "x = 4 4/11"], ["16/11"]),
    ("20 or 40", ["20 or 40", " 20 or 40 "], ["20", "40 or 20"]),  # a gold that is no formula
    # Names in front: angles by number, arcs, segments, Greek letters, words.
    ("79", ["m∠4 = 79", "m∠ABC = 79", "\\angle 4 = 79", "m \\measuredangle 12=79", "\\widehat{AB} = 79", "m \\widehat A B = 79",
            "m\\overset{\\frown}{AB} = 79", "\\overline{AB} = 79", "θ = 79", "m∠θ = 79", "\\theta=79", "x_1 = 79", "AB' = 79",
            "\\text{m}\\angle{4} = 79", "area = 79", "arc AB = 79", "measure of angle 4 = 79", "x ≈ 79", "= 79"],
     ["m∠79 = 4", "∠79", "2x = 79", "not 79", "x ≠ 79", "m∠4 = 97", "m∠4 + m∠5 = 79"]),
    # Marks and units behind.
    ("79", ["79 cm", "79cm", "79 m", "79 cm²", "79 \\text{ cm}^2", "79\\,\\mathrm{cm}", "79 ㎝", "79 square units", "79 sq. in.", "79 ft",
            "79 degrees", "79º", "79˚", "79°", "79∘", "79^∘", "79^{\\circ}", "79\\%", "$79", "79 m^2", "m∠4 = 79º."],
     ["79 cm or 80 cm", "79 cm 80", "79 cm^4", "cm", "79 x", "79 \\text{ not}", "79 or", "cm 79"]),
    ("79 \\text{ cm}", ["79", "79 cm", "79 units"], ["79 in", "79 cm^2", "79°"]),
    ("3m^2", ["3m^2", "3 m^2"], ["3", "3 cm^2"]),  # a variable, as far as the gold goes
    # Other characters for the same.
    ("-120", ["−120", "–120", "－１２０", "‐120", "-120", "x = −120"], ["120", "~120", "1−20", "--120"]),
    ("\\frac { 1 } { 2 }", ["½", "1⁄2", "1∕2", "2⁻¹"], ["½2"]),
    ("\\frac { 9 } { 2 }", ["4½", "4 ½"], ["41/2"]),
    ("25", ["5²", "5^2", "２５"], ["52", "2⁵"]),
    ("2 \\theta", ["2θ", "θ2", "θ+θ", "2\\theta", "2𝜃"], ["2", "θ", "2α"]),
    ("1234567", ["1,234,567", "1{,}234{,}567", "1\\,234\\,567", "1,\\!234,\\!567", "1\u202f234\u202f567", "1.234567e6", "1234567.0"], ["1,234", "1 234 567", "1.234567"]),
]  # fmt: skip


def test_a_minus_sign_in_the_gold_is_one() -> None:
    assert MATCHERS["math"]("-120", sample("−120", kind="math")) == 1


@pytest.mark.parametrize(("gold", "right", "wrong"), MATH)
def test_formulas(gold: str, right: list[str], wrong: list[str]) -> None:
    grader, one = MATCHERS["math"], sample(gold, kind="math")
    assert {answer: grader(answer, one) for answer in right} == dict.fromkeys(right, 1.0)
    assert {answer: grader(answer, one) for answer in wrong} == dict.fromkeys(wrong, 0.0)


def test_a_long_number_is_looked_at_in_no_time() -> None:
    """Each further digit once doubled the time; this one would take until the end of the world."""
    assert symbolic.parse_math("1" * 150 + "€") is None


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("on", "no", 1), ("no", "on", 1), ("None", "none", 1), ("god", "dog", 0),
        ("yes.", "yes", 0), ("A.", "A", 0), ("A. West Virginia", "A", 0), ("2", "two", 0),
        ("True", "Yes", 0), ("(A)", "A", 1), ("3.0", "3", 1), ("0.5", "1/2", 1),
        ("48", "48^\\circ", 1), ("7.850", "7.85", 1), ("2\\sqrt{221}", "2 \\sqrt { 221 }", 1),
        ("48/11", "4 \\frac { 4 } { 11 }", 1), ("UNANSWERABLE", "unanswerable", 1),
    ],
)  # fmt: skip
def test_the_paper_s_grader_is_mathruler_with_its_quirks(
    answer: str, gold: str, equal: int
) -> None:
    assert MATCHERS["mathruler"](answer, sample(gold)) == equal


@pytest.mark.slow
def test_a_formula_that_never_ends_is_wrong_and_the_next_one_is_graded() -> None:
    """The helper ends itself by its processor time, and is replaced."""
    helper = symbolic.Helper()
    try:
        assert helper.ask("math", "1/2", "0.5")
        before = helper.process
        assert not helper.ask("math", "9^{9^{9}}", "5")  # kept from sympy by parse_math
        assert helper.process is not before
        assert helper.ask("math", "1/2", "0.5")
    finally:
        helper.stop()


def test_a_helper_that_is_killed_is_replaced() -> None:
    helper = symbolic.Helper()
    try:
        assert helper.ask("math", "1/2", "0.5")
        assert helper.process is not None
        helper.process.kill()
        helper.process.wait()
        assert helper.ask("math", "1/2", "0.5")
    finally:
        helper.stop()


def test_formulas_are_graded_in_threads() -> None:
    """Where signals, which both libraries use for their time limits, do not work."""
    found: list[float] = []
    work = lambda n: found.append(MATCHERS["math"](f"{n}/2", sample(f"{n / 2}")))  # noqa: E731
    threads = [threading.Thread(target=work, args=(n,)) for n in range(101, 109)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1.0] * 8


@pytest.mark.parametrize(("name", "module"), [("math", "math_verify"), ("mathruler", "mathruler")])
def test_a_missing_library_is_named(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = symbolic.find_spec
    monkeypatch.setattr(symbolic, "find_spec", lambda m: None if m == module else real(m))
    with pytest.raises(CptBenchError, match=rf"needs {module}.*pip install 'cptbench\[grade\]'"):
        MATCHERS[name]("5", sample("5"))


# ------------------------------------------------------------------------------ others

CATS = ("a cat", "a dog", "two cats")


@pytest.mark.parametrize(
    ("grader", "gold", "right", "wrong"),
    [
        ("choice", sample("B", choices=CATS), ["B", "b.", "(B)", "(B) a dog", "B. A dog", "a dog"], ["A", "A. a dog", "B a dog", "B or C", "dog", "B. a cat", ""]),
        ("scienceqa", sample("B", choices=CATS), ["B", "B. a dog", "So. The answer is B."], ["b", "The answer is A. The answer is B.", "E", "B or C"]),
        ("mmlu-pro-1", sample("B", choices=CATS), ["the answer is (B).", "answer is B"], ["Answer: B", "B"]),
        ("mmlu-pro", sample("B", choices=CATS), ["the answer is (B).", "Answer: B", "Answer: A Answer: B"], ["B", "Answer: B\nthe answer is (A)"]),
        ("mmlu-pro-3", sample("B", choices=CATS), ["B", "A or B"], ["A", "B, no, A"]),
        ("mmmu", sample("B", kind="letter", choices=CATS), ["B", "(B)", "I think it is B .", "A, no: (B)"], ["C", "(B) (C)", "unsure"]),
        ("mmmu", sample("12.5", kind="open"), ["12.5", "So the answer is 12.50", "x = 12.5"], ["11 12 12.5", "12.4", "it is 12 or 12.5"]),
        ("mmmu", sample("1249", kind="open"), ["The answer is 1,249.", "1249", "so 1,249 dollars", "x = $1,249", "1.249e3", "１，２４９", "1\u202f249"], ["249", "1,249.50", "1", "1 249", "1,249 or 1,250", "11,249", "-1,249"]),
        ("mmmu", sample("7,243,000", kind="open"), ["7,243,000", "It is 7243000.", "7.243e6", "7.243E+06 people"], ["243,000", "7,243", "7,243,000,000"]),
        ("mmmu", sample("1.5e3", kind="open"), ["1.5e3", "so 1500", "1,500.00", "is 1.5E+3 m"], ["1.5", "3", "1.5e4", "15e3"]),
        ("mmmu", sample("-1,249.50", kind="open"), ["−1249.5", "It is −1,249.50 dollars", "-1,249.50"], ["1,249.50", "-1,249", "-249.5"]),
        ("mmmu", sample("0.25", kind="open"), [".25", "0.25", "1/4 = .25"], ["0.3", "25", "1/4"]),
        ("mmmu", sample("St. Mary", kind="open"), ["St. Mary.", "the st. mary!", "**St. Mary**"], ["Mary", "St. Mary or John"]),
        ("mmmu", sample("infinity", kind="open"), ["Infinity", "so infinity."], ["1e999", "nan"]),
        ("mmmu", sample("zero", "0", kind="open"), ["0", "zero", "the answer is the zero"], ["subzero", "not zero", "10"]),
        ("mmmu-official", sample("zero", "0", kind="open"), ["0", "subzero"], ["10", "one"]),
        # Letters beyond the options are no answers.
        ("scienceqa", sample("B", choices=CATS), ["H. pylori causes it. The answer is B.", "D. Smith did. The answer is B.", "The answer is H. pylori. The answer is B."], ["A. pylori causes it. The answer is B.", "H. pylori causes it.", "The answer is H."]),
        ("choice", sample("B", choices=("x", "z")), ["B", "z"], ["C", "Z z", "(E)"]),
        # Options that are letters: their words come before the letters.
        ("choice", sample("D", choices=("A", "B", "AB", "O")), ["O", "o", "(O)", "O.", "D. O", "D"], ["AB", "C", "0", "A"]),
        ("choice", sample("C", choices=("A", "B", "AB", "O")), ["AB", "ab.", "C"], ["B", "A, B", "A"]),
        ("choice", sample("A", choices=("X", "Y")), ["X", "x.", "A", "A) X"], ["Y", "A) Y"]),
        ("choice", sample("I", choices=("II", "I", "III")), ["I", "B", "(I)"], ["II", "A", "III"]),
        ("by-kind", sample("D", kind="letter", choices=("A", "B", "AB", "O")), ["O", "D"], ["A"]),
        ("choice", sample("a dog", choices=CATS), ["B", "a dog", "(B) a dog"], ["A", "dog"]),
        ("number", sample("-120"), ["−120", "－120", "–120", "－１２０", "-120.0", "‑120"], ["120", "— 120", "1−20", "-12²"]),
        ("number", sample("12"), ["１２", "+12", "＋12", "𝟏𝟐", "1.2e1"], ["1²", "¹²", "1₂", "−12"]),
        ("number", sample("1234567"), ["1,234,567", "1\u202f234\u202f567", "１，２３４，５６７"], ["1 234 567", "1,234"]),
        ("open", sample("-120"), ["−120", "−120.", "-120.0."], ["120"]),
        ("by-kind", sample("-120", kind="number"), ["−120"], ["120"]),
        ("by-kind", sample("-120", kind="open"), ["−120"], ["120"]),
        ("by-kind", sample("-120", kind="math"), ["−120"], ["120"]),
        ("pope", sample("no"), ["No", "no, there is none", "There is not a dog. Yes."], ["yes", "unknown", "nothing", ""]),
        ("pope", sample("yes"), ["Yes", "yes, it is"], ["a dog", "no", "yesterday", "not yes"]),
        ("pope-official", sample("yes"), ["Yes", "a dog", ""], ["no", "It is not"]),
        ("pathvqa", sample("yes"), ["Yes", "yes."], ["yes no", "yes it is", ""]),
        ("gqa", sample("Shirt"), ["shirt", " SHIRT "], ["shirts", "a shirt"]),
        ("exact-case", sample("Yes"), ["yes"], ["yes.", "Yes, it is"]),
        ("open", sample("zero", "0"), ["0", "Zero", "0.0"], ["00 1", "zeroes"]),
        ("by-kind", sample("B", kind="letter", choices=CATS), ["B", "a dog"], ["dog"]),
        ("by-kind", sample("12", kind="number"), ["12", "12.0"], ["12 cars", "twelve"]),
        ("by-kind", sample("The bicycle is blue"), ["the bicycle is blue."], ["blue"]),
    ],
)  # fmt: skip
def test_data_sets_own_graders(
    grader: str, gold: Sample, right: list[str], wrong: list[str]
) -> None:
    matcher = MATCHERS[grader]
    assert {r: matcher(r, gold) for r in right} == dict.fromkeys(right, 1.0)
    assert {w: matcher(w, gold) for w in wrong} == dict.fromkeys(wrong, 0.0)


IMPOSSIBLE = [
    *[(g, sample(gold, kind="letter", choices=CATS[:2])) for g in ("choice", "letter", "by-kind", "scienceqa", "mmlu-pro", "mmmu", "mmmu-official")
      for gold in ("1", "(B)", "E", "", "?", "C.", "two cats")],
    ("mmlu-pro-3", sample("J", choices=("a", "b", "c", "d"))),
    ("letter", sample("AB")), ("letter", sample("2")),
    ("choice", sample("same", choices=("same", "same"))),
    *[(g, sample(gold)) for g in ("yesno", "pope", "pope-official") for gold in ("1", "true", "", "yes or no", "unanswerable")],
    ("by-kind", sample("1", kind="yesno")), ("by-kind", sample("red", kind="number")),
    ("number", sample("twelve")), ("number", sample("12 cm")), ("number", sample("1²")), ("number", sample("nan")),
]  # fmt: skip


@pytest.mark.parametrize(("grader", "gold"), IMPOSSIBLE)
def test_a_gold_that_no_reply_can_match_is_an_error(grader: str, gold: Sample) -> None:
    """It once made every reply wrong, the right ones too."""
    with pytest.raises(CptBenchError, match=r"the gold answer of 's' is .*(none of|neither|not)"):
        MATCHERS[grader]("B", gold)


def test_more_words_cost_in_open_pathology() -> None:
    gold = sample("red blood cells")
    scores = [
        MATCHERS["pathvqa"](r, gold)
        for r in ("red blood cells", "red cells", "red blood cells or liver", "liver")
    ]
    assert scores == [1.0, pytest.approx(0.8), pytest.approx(0.75), 0.0]


HEDGES = {
    "yesno": ["yes no", "yes or no", "unknown", "no idea", "not sure, yes"],
    "letter": ["A B C D", "A or B", "all of them", "(A)(B)(C)"],
    "number": ["1 2 3 4 5", "between 1 and 9", "1-9"],
    "word": ["red blue green", "red or blue", "predator", "infrared"],
}


@pytest.mark.parametrize("kind", HEDGES)
def test_naming_every_answer_earns_nothing(kind: str) -> None:
    golds = {
        "yesno": ["yes", "no"],
        "letter": ["A", "B", "C"],
        "number": ["1", "5"],
        "word": ["red", "blue"],
    }
    graders = {"yesno": ["yesno", "by-kind", "pathvqa", "exact"], "letter": ["letter", "choice", "by-kind", "scienceqa", "mmlu-pro"],
               "number": ["number", "open", "by-kind", "math"], "word": ["exact", "vqa", "vqa-evalai", "vqa-official", "gqa", "by-kind", "open"]}  # fmt: skip
    for gold in golds[kind]:
        one = sample(
            gold,
            kind=kind,
            choices=CATS if kind == "letter" else (),
            annotators=(gold,) * 9 + ("x",),
        )
        for grader in graders[kind]:
            assert [MATCHERS[grader](hedge, one) for hedge in HEDGES[kind]] == [0.0] * len(
                HEDGES[kind]
            ), grader


# --------------------------------------------------------------------- the paper's form

PAPER = AnswerForm(kind="boxed", open="\\boxed{", close="}", thought=("<think>", "</think>"))
WHOLE = AnswerForm(kind="whole")


@pytest.mark.parametrize(
    ("reply", "score", "form", "earned"),
    [
        ("<think>x</think>\\boxed{5}", 1, True, 1.0),
        ("<think>x</think> so \\boxed{4} or \\boxed{5}.", 1, True, 1.0),  # the last box
        ("\\boxed{5}", 1, False, 0.9),  # accuracy counts without the form
        ("<think>x</think>\\boxed{6}", 0, True, 0.1),
        ("< think >x< / think >\\boxed{5}", 1, True, 1.0),
        ("<think>x</think>5", 0, False, 0.0),
        ("5", 0, False, 0.0),
        ("\\boxed{5", 0, False, 0.0),
    ],
)  # fmt: skip
def test_the_paper_s_reward(reply: str, score: float, form: bool, earned: float) -> None:
    got = grade(reply, sample("5"), PAPER, MATCHERS["mathruler"])
    assert (got.score, got.format_ok) == (score, form)
    assert reward(got, RewardWeights(accuracy=0.9, format=0.1)) == pytest.approx(earned)
    assert got.lenient >= got.score


def test_braces_in_a_box_are_balanced() -> None:
    assert read_boxed("\\boxed{\\frac{1}{\\sqrt{2}}} end") == "\\frac{1}{\\sqrt{2}}"
    assert read_boxed("\\boxed{a} \\boxed{b") is None
    got = grade(
        "<think>t</think> \\boxed{\\frac{1}{2}}", sample("0.5"), PAPER, MATCHERS["mathruler"]
    )
    assert got.score == 1 and got.extracted == "\\frac{1}{2}"


def test_a_missing_box_is_the_word_none_as_in_mathruler() -> None:
    """As published, for this grader alone."""
    assert grade("no box", sample("none"), PAPER, MATCHERS["mathruler"]).score == 1
    assert grade("no box", sample("5"), PAPER, MATCHERS["mathruler"]).score == 0


NOBODY = ("None", "One")
NO_ANSWER = {
    "vqa": sample("0", annotators=("0",) * 10), "vqa-official": sample("none", annotators=("none", "zero") * 5),
    "vqa-evalai": sample("0", annotators=("0",) * 10), "choice": sample("A", choices=NOBODY), "exact": sample("none"),
    "exact-case": sample("None"), "open": sample("none"), "gqa": sample("none"), "by-kind": sample("none"),
    "pathvqa": sample("none"), "mmmu": sample("none", kind="open"), "mmmu-official": sample("None", kind="open"),
    "pope-official": sample("yes"), "math": sample("None", kind="math"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_ANSWER)
@pytest.mark.parametrize(
    "reply", ["I do not know", "", "\\boxed{", "boxed{5}", "<think>x</think> nobody"]
)
def test_no_box_is_no_answer(name: str, reply: str) -> None:
    """Once it was the word None, which counted as 0, none or an option of these words."""
    got = grade(reply, NO_ANSWER[name], PAPER, MATCHERS[name])
    assert (got.score, got.read) == (0, None)
    assert grade("\\boxed{None}", NO_ANSWER[name], PAPER, MATCHERS[name]).score == 1


@pytest.mark.parametrize("form", ["whole", "tags"])
def test_nothing_is_no_answer(form: str) -> None:
    """An empty reply, or full stops, is not what a gold is that normalises to nothing."""
    asked = WHOLE if form == "whole" else FORMS[0]
    for name in ("exact", "open", "by-kind"):
        for reply in ("", ".", "...", " \n"):
            dressed = reply if form == "whole" else f"<answer>{reply}</answer>"
            assert grade(dressed, sample(".."), asked, MATCHERS[name])[0::3] == (0, 0)
        assert MATCHERS[name]("...", sample("...")) == 1


@given(
    st.lists(st.sampled_from(["\\boxed{", "{", "}", "5", "x", "\\frac", " "]), max_size=20).map(
        "".join
    )
)
@settings(max_examples=300, deadline=None)
def test_boxes_are_read_as_mathruler_reads_them(text: str) -> None:
    library = pytest.importorskip("mathruler.grader")
    mine = read_boxed(text)
    assert ("None" if mine is None else mine) == library.extract_boxed_content(text)


MARKS = st.sampled_from(
    ["<think>", "</think>", "< /", "think", ">", " ", "\n", "\\boxed{", "}", "x"]
)
DIGITS = st.text(alphabet="0123,.e-+ aE1", max_size=14)
PUBLISHED_NUMBERS = [
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(MARKS, max_size=9).map("".join), st.booleans(), DIGITS)
def test_quick_readings_find_what_the_published_patterns_find(
    text: str, begun: bool, digits: str
) -> None:
    text = f"<think>{text}" if begun else text
    published = re.fullmatch(
        r"<think>.*</think>.*\\boxed\{.*\}.*", re.sub(r"\s*(<|>|/)\s*", r"\1", text), re.DOTALL
    )
    assert has_boxed_form(text) == (published is not None)
    for pattern, mine in zip(PUBLISHED_NUMBERS, official._NUMBERS, strict=True):
        assert mine.findall(digits) == re.findall(pattern, digits)


def test_the_whole_reply_is_the_answer_in_direct_styles() -> None:
    assert grade(" Yes \n", sample("yes"), WHOLE, MATCHERS["exact-case"])[:3] == (1.0, "Yes", True)
    assert grade("Yes, it is", sample("yes"), WHOLE, MATCHERS["exact-case"]).score == 0
    assert grade("", sample("yes"), WHOLE, MATCHERS["exact-case"]).format_ok is False


# ------------------------------------------------------------- ten thousand replies


def tokens(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def holds(text: str) -> str:
    return "".join(re.findall(r"[^\W_]", unicodedata.normalize("NFKC", text).casefold()))


GOLDS: dict[str, tuple[Sample, Callable[[str], bool]]] = {
    # grader -> gold, and what any reply that scores must at least contain
    "exact": (sample("red star"), lambda r: "redstar" in holds(r)),
    "exact-case": (sample("red star"), lambda r: "redstar" in holds(r)),
    "letter": (sample("C", kind="letter"), lambda r: "c" in holds(r)),
    "choice": (sample("C", kind="letter", choices=("x", "y", "red star")), lambda r: "c" in holds(r) or "redstar" in holds(r)),
    "number": (sample("12", kind="number"), lambda r: {"1", "2"} <= set(holds(r))),
    "open": (sample("12", kind="open"), lambda r: {"1", "2"} <= set(holds(r))),
    "yesno": (sample("no", kind="yesno"), lambda r: "no" in tokens(r)),
    "by-kind": (sample("no", kind="yesno"), lambda r: "no" in tokens(r)),
    "vqa": (ten("no", "no", "red star", "2"), lambda r: bool(tokens(r) & {"no", "2", "two"}) or {"red", "star"} <= tokens(r)),
    "vqa-evalai": (ten("no", "no", "red star", "2"), lambda r: bool(tokens(r) & {"no", "2", "two"}) or {"red", "star"} <= tokens(r)),
    "vqa-official": (ten("no", "no", "red star", "2"), lambda r: bool(tokens(r) & {"no", "2", "two"}) or {"red", "star"} <= tokens(r)),
    "math": (sample("12 \\sqrt { 3 }", kind="math"), lambda r: any(c in r for c in "3") or "432" in r),
    "mathruler": (sample("unanswerable"), lambda r: "unanswerable" in re.sub(r"[^a-z]", "", r.lower())),
    "gqa": (sample("red star"), lambda r: "redstar" in holds(r)),
    "mmlu-pro": (sample("C", kind="letter"), lambda r: "C" in r and "nswer" in r),
    "mmlu-pro-1": (sample("C", kind="letter"), lambda r: "C" in r and "answer is" in r),
    "mmlu-pro-3": (sample("C", kind="letter"), lambda r: "C" in r),
    "mmmu": (sample("red star", kind="open"), lambda r: "redstar" in holds(r)),
    "mmmu-official": (sample("C", kind="letter"), lambda r: "C" in r),
    "pathvqa": (sample("red star"), lambda r: "red" in r.lower() or "star" in r.lower()),
    "pope": (sample("no", kind="yesno"), lambda r: bool(tokens(r) & {"no", "not"})),
    "pope-official": (sample("no", kind="yesno"), lambda r: bool(tokens(r) & {"no", "not"})),
    "scienceqa": (sample("C", kind="letter"), lambda r: "C" in r),
    "answer-within": (sample("12"), lambda r: "12" in r),
    "word-count": (sample("12"), lambda r: len(r.split()) > 2),
}  # fmt: skip
if find_spec("reasoning_gym"):
    TWELVE = Sample(
        id="chain_sum(max_digits=1,max_terms=2,min_terms=2,seed=7)[11]",
        question="7 + 5 =",
        answers=("12",),
        kind="number",
    )
    GOLDS["reasoning-gym"] = (TWELVE, lambda r: {"1", "2"} <= set(holds(r)))
    GOLDS["reasoning-gym-partial"] = GOLDS["reasoning-gym"]

PIECES = st.sampled_from(
    ["<answer>", "</answer>", "<think>", "</think>", " ", " ", "\n", "no", "No", "on", "unknown", "none", "None",
     "yes", "not", "C", "c", "(C)", "A", "(", ")", "The answer is ", "answer is (", "Answer: ", "12", "1", "2", "1e1",
     "1e999", "-", "*", "**", "^", "!", "9^9^9", "\\frac{", "\\sqrt", "{", "}", "3", "\\boxed{", "red", "star", " star",
     "red star", "redstar", "unanswerable", "un", "answerable", "É", "¹²", "\u2028", "\x00", "𝟏𝟐", "nan", "inf", ".",
     ",", "'s", "a", "the", "two", "x=", "$", "\\", "lambda", "__import__", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
     "\u202e", "Ⅽ", "ⅽ", "ﬁ", "is ", "= "]
)  # fmt: skip
REPLIES = st.lists(
    st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=10).map("".join)),
    min_size=50,
    max_size=50,
)
FORMS = [
    AnswerForm(open="<answer>", close="</answer>", thought=("<think>", "</think>")),
    PAPER,
    WHOLE,
    AnswerForm(kind="natural", open="The answer is ", close="."),
]


def test_every_grader_is_tried() -> None:
    known = {n for n in MATCHERS if not n.startswith("reasoning-gym") or find_spec("reasoning_gym")}
    assert GOLDS.keys() == known
    assert MATCHERS.keys() > AS_PUBLISHED


def check_replies(replies: list[str]) -> None:
    """Every reply through every grader, under every form."""
    for name, (gold, could_be_right) in GOLDS.items():
        matcher = MATCHERS[name]
        for reply in replies:
            got = grade(reply, gold, WHOLE, matcher)
            assert 0 <= got.score <= 1
            assert not got.score or could_be_right(reply), (name, reply)
            parse(name, reply, gold)
    for reply in replies:
        for form in FORMS:
            for name in ("exact", "vqa", "choice"):
                gold, could_be_right = GOLDS[name]
                got = grade(reply, gold, form, MATCHERS[name])
                assert 0 <= got.score <= got.lenient <= 1
                assert not got.lenient or could_be_right(reply), (name, form.kind, reply)


ANY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=20, **ANY)
@given(REPLIES)
def test_a_thousand_replies_crash_nothing_and_earn_nothing_without_the_answer(
    replies: list[str],
) -> None:
    check_replies(replies)


@pytest.mark.slow
@settings(max_examples=200, **ANY)
@given(REPLIES)
def test_ten_thousand_replies_crash_nothing_and_earn_nothing_without_the_answer(
    replies: list[str],
) -> None:
    check_replies(replies)


def test_a_very_long_reply_is_graded_at_once() -> None:
    """No grader takes time that grows with the square of a reply."""
    for text in (
        "answer: " * 10_000,
        "Answer: A " * 10_000,
        " " * 80_000,
        "1" * 80_000 + ",",
        "<think>" + "</think>" * 15_000,
        "<think></think>" + "\\boxed{" * 15_000,
        "(" * 80_000,
        "no " * 110_000,
        "\\boxed{" * 15_000,
        "9^" * 40_000,
    ):
        for name, (gold, _) in GOLDS.items():
            assert grade(text, gold, WHOLE, MATCHERS[name]).score in (0.0, 1.0)
        for form in FORMS:
            grade(text, GOLDS["exact"][0], form, MATCHERS["exact"])


# ---------------------------------------------------------------------------- command


def test_grade_command(cli: Cli, tmp_path: Path) -> None:
    lines = [
        {"id": i, "reply": r, "gold": "no"} for i, r in enumerate(["unknown", "No.", "yes", "no"])
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = cli("grade", "in.jsonl", "--grader", "pope")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["score"] for row in rows] == [0, 1, 0, 1] and [row["id"] for row in rows] == [
        0,
        1,
        2,
        3,
    ]
    summary = json.loads(done.stderr.splitlines()[-1])
    assert (summary["n"], summary["accuracy"], summary["unparsed"]) == (4, 50, 25)
    assert summary["yes_no"]["yes_share"] == 25
    tagged = json.dumps({"reply": "<think>a</think><answer>b</answer>", "gold": ["a", "b"]})
    done = cli(
        "grade", "-", "--grader", "exact", "--form", "tags", "--out", "out.jsonl", input=tagged
    )
    assert json.loads((tmp_path / "out.jsonl").read_text())["score"] == 1 and not done.stdout


@pytest.mark.parametrize(
    ("text", "args", "complaint"),
    [
        ('{"reply": "x", "gold": "x"}\n{"reply": "x"}', ["--grader", "exact"], "standard input:2: gold is None, not a text"),
        ('{"reply": 3, "gold": "x"}', ["--grader", "exact"], "standard input:1: reply is 3, not text"),
        ("nonsense", ["--grader", "exact"], "standard input:1: not valid JSON"),
        ("[1]", ["--grader", "exact"], "standard input:1: not a JSON object"),
        ("", ["--grader", "exact"], "no lines to grade"),
        ('{"reply": "x", "gold": "x"}', ["--grader", "exacd"], "no grader is called 'exacd'. Did you mean 'exact'?"),
        ('{"reply": "x", "gold": "x"}', [], "Give --grader NAME, or --suite NAME --task NAME"),
        ('{"reply": "x", "gold": "x"}', ["--grader", "exact", "--profile", "paper"], "Give --suite and --task with it"),
        ('{"reply": "x", "gold": "A", "choices": 3}', ["--grader", "choice"], "standard input:1: choices is 3, not a list of texts"),
        ('{"reply": "x"}', ["--suite", "nano", "--task", "text"], "no test sample has the id None"),
        ('{"reply": "x"}', ["--suite", "nano"], "no --task. There is: science"),
    ],
)  # fmt: skip
def test_a_bad_line_is_one_clear_error(
    cli: Cli, text: str, args: list[str], complaint: str
) -> None:
    done = cli("grade", *args, input=text)
    assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1


def test_a_suite_s_task_is_graded_by_id(cli: Cli) -> None:
    from cpt_bench.sources import load_split

    suite = open_suite("nano")
    gold = load_split(suite.card("text"), "test")[:3]
    replies = [suite.protocol.target(gold[0].answers[0]), gold[1].answers[0], "<answer>?</answer>"]
    text = "".join(
        json.dumps({"id": g.id, "reply": r}) + "\n" for g, r in zip(gold, replies, strict=True)
    )
    done = cli("grade", "--suite", "nano", "--task", "text", input=text)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["score"], r["lenient"], r["format_ok"]) for r in rows] == [
        (1, 1, True),
        (0, 1, False),
        (0, 0, True),
    ]


def test_a_third_party_s_grader(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def first(answer, sample):\n    return float(answer[:1] == sample.answers[0][:1])\n"
    )
    assert find_matcher(f"{tmp_path}/mine.py:first")("cat", sample("cow")) == 1
    with pytest.raises(CptBenchError, match=r"no grader is called 'vqaa'\. Did you mean 'vqa'\?"):
        find_matcher("vqaa")


def test_summary_by_group_and_yes_share() -> None:
    samples = [
        sample("yes", kind="yesno").model_copy(update={"category": c})
        for c in ("random", "popular")
    ]
    samples += [sample("no", kind="yesno")] * 2
    replies = [
        Graded("yes", 1, True),
        Graded("maybe", 0, True),
        Graded("no", 1, True),
        Graded(None, 0, False),
    ]
    out = summarise("yesno", samples, replies)
    assert (out["accuracy"], out["unparsed"], out["format_ok"]) == (50, 50, 75)
    assert out["yes_no"] == {
        "precision": 100,
        "recall": 50,
        "f1": 66.6667,
        "yes_share": 25,
        "unparsed": 50,
    }
    assert out["by_category"]["random"] == {"n": 1, "accuracy": 100}
    assert "by_kind" not in out


@pytest.mark.parametrize(
    ("grader", "replies", "figures"),
    [
        # As published, 'A dog' and 'NO' are both a yes.
        ("pope-official", [("Yes", "yes"), ("A dog", "yes"), ("No", "no"), ("NO", "no")], (200 / 3, 100, 80, 75, 0)),
        ("pope", [("Yes", "yes"), ("A dog", "yes"), ("No", "no"), ("NO", "no")], (100, 50, 200 / 3, 25, 25)),
        # Each grader's own reading: what it would find right.
        ("exact", [("Yes.", "yes"), ("no", "yes"), ("NO.", "no"), ("yes!", "no")], (100, 50, 200 / 3, 25, 25)),
        ("pathvqa", [("Yes.", "yes"), ("yes!", "no"), ("no,", "no"), ("maybe", "no")], (50, 100, 200 / 3, 50, 25)),
        ("mathruler", [("Yes", "yes"), ("on", "no"), ("no", "yes"), ("dog", "yes")], (100, 100 / 3, 50, 25, 25)),
        ("gqa", [("YES", "yes"), ("no.", "no"), ("No", "no"), ("yes", "no")], (50, 100, 200 / 3, 50, 25)),
        ("by-kind", [("yes.", "yes"), ("yes or no", "no"), ("", "yes"), ("NO", "no")], (100, 50, 200 / 3, 25, 50)),
    ],
)  # fmt: skip
def test_yes_or_no_is_read_as_it_is_scored(
    grader: str, replies: list[tuple[str, str]], figures: tuple[float, ...]
) -> None:
    """Precision, recall, F1, share of yes, unparsed: of the reading that makes the accuracy."""
    samples = [sample(gold, kind="yesno") for _, gold in replies]
    graded = []
    for (reply, _), one in zip(replies, samples, strict=True):
        got = grade(reply, one, WHOLE, MATCHERS[grader])
        graded.append(Graded(got.read, got.score, got.format_ok))
    found = summarise(grader, samples, graded)["yes_no"]
    assert tuple(found.values()) == pytest.approx(figures, abs=1e-3)


def test_yes_or_no_of_annotators_and_synonyms() -> None:
    split = sample("yes", annotators=("yes",) * 6 + ("no",) * 4)  # both are right
    several = sample("no", "nope")
    for grader, one, reply, meant in (
        ("vqa", split, "No", "no"), ("vqa", split, "Yes!", "yes"), ("vqa-official", split, "Yes", "yes"),
        ("vqa-official", sample("yes", annotators=("yes",) * 10), "Yes", None),  # as published: raw text
        ("exact", several, "nope", "no"), ("exact", several, "yes", "yes"), ("exact", several, "yep", None),
    ):  # fmt: skip
        score = MATCHERS[grader](reply, one)
        found = summarise(grader, [one], [Graded(reply, score, True)])["yes_no"]
        shares = (found["yes_share"], found["unparsed"])
        assert shares == {"yes": (100, 0), "no": (0, 0), None: (0, 100)}[meant], (grader, reply)


def test_a_reply_without_the_form_says_nothing_in_the_figures() -> None:
    """The strict reading scores, so it is the strict reading that is summed up."""
    samples = [sample("yes", kind="yesno"), sample("no", kind="yesno")]
    graded = []
    for reply, one in zip(("<answer>yes</answer>", "yes"), samples, strict=True):
        got = grade(reply, one, FORMS[0], MATCHERS["yesno"])
        graded.append(Graded(got.read, got.score, got.format_ok))
    found = summarise("yesno", samples, graded)
    assert found["yes_no"]["precision"] == 100 and found["yes_no"]["yes_share"] == 50
    assert (found["accuracy"], found["unparsed"]) == (50, 50)


def test_the_helper_starts_from_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpt_bench.grading.symbolic_helper"], capture_output=True, text=True,
        input='["math", "1/2", "0.5"]\n["math", "1/3", "0.5"]\n["mathruler", "on", "no"]\n',
    )  # fmt: skip
    assert done.stdout == "ready\n1\n0\n1\n"
