"""Readings and matchers: what scores, what does not, and what can never crash them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import graded
from cpt_bench.grading import MATCHERS, grade, reward
from cpt_bench.grading.numbers import as_number
from cpt_bench.grading.reading import undress
from cpt_bench.sources import load_split
from cpt_bench.suite import AnswerForm, RewardWeights, Sample, open_suite

FORM = AnswerForm(open="<answer>", close="</answer>", thought=("<think>", "</think>"))
WEIGHTS = RewardWeights(accuracy=0.9, format=0.1)


def sample(answer: str, kind: str = "word") -> Sample:
    return Sample(id="s", question="?", answers=(answer,), kind=kind)


@pytest.mark.parametrize(
    ("reply", "score", "lenient", "form"),
    [
        ("<answer>red star</answer>", 1, 1, True),
        ("<think>look</think><answer>red star</answer>", 1, 1, True),
        (" <think> a\nb </think>\n <answer> Red  Star. </answer>\n", 1, 1, True),
        ("<answer>blue star</answer>", 0, 0, True),
        ("red star", 0, 1, False),  # the right answer, the wrong form
        ("<answer>red star", 0, 1, False),
        ("<think>look</think>red star", 0, 1, False),
        ("<answer>red star</answer> I think", 0, 1, False),
        ("<think>look<answer>red star</answer>", 0, 1, False),
        ("<answer>red star</answer><answer>blue star</answer>", 0, 0, False),
        ("<answer>blue star</answer><answer>red star</answer>", 0, 1, False),
        ("it is red star or blue star", 0, 0, False),  # never searched for
        ("<think><answer>red star</answer></think><answer>no</answer>", 0, 0, False),
        ("<answer></answer>", 0, 0, True),
        ("", 0, 0, False),
        ("<answer>", 0, 0, False),
        ("<answer></answer", 0, 0, False),
    ],
)
def test_readings(reply: str, score: float, lenient: float, form: bool) -> None:
    got = grade(reply, sample("red star"), FORM, MATCHERS["exact"])
    assert (got.score, got.lenient, got.format_ok) == (score, lenient, form)


WHOLE = AnswerForm(kind="whole")
BOXED = AnswerForm(kind="boxed", open="\\boxed{", close="}", thought=("<think>", "</think>"))


@pytest.mark.parametrize(
    ("dressed", "bare"),
    [
        ("\\boxed{42}", "42"), ("**B**", "B"), ("*B*", "B"), ("__B__", "B"), ("`B`", "B"), ("***B***.", "B"),
        ("$42$", "42"), ("$$42$$", "42"), ("\\(42\\)", "42"), ("\\[ 42 \\]", "42"), ("$\\boxed{42}$.", "42"),
        ("\\boxed{\\text{B}}", "B"), ("\\textbf{B}", "B"), ("\\mathrm{B}", "B"), ("\\fbox{42}", "42"), ("\\boxed {42}", "42"),
        ("\\(\\boxed{\\text{**B**}}\\).", "B"), ('"B"', "B"), ("\u201cred star\u201d", "red star"), ("# 42", "42"), ("* B", "B"), ("• B", "B"),
        ("```\nB\n```", "B"), ("```text\nred star\n```", "red star"), ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        # A box marks the answer among other words; the last one counts.
        ("so the area is \\boxed{42} at last", "42"), ("\\boxed{41} no: \\boxed{42}", "42"),
        # No word comes off, and no sign that means something.
        ("not **B**", "not **B**"), ("**A** or **B**", "**A** or **B**"), ("the answer is B", "the answer is B"), ("- 42", "- 42"),
        ("> 42", "> 42"), ("(B)", "(B)"), ("\\sqrt{42}", "\\sqrt{42}"), ("$5 and $6", "$5 and $6"), ("\\boxed{42", "\\boxed{42"), ("*", "*"),
        ("~~B~~", "~~B~~"), ("", ""), ("**", "**"), ("a_b_c", "a_b_c"), ("'tis", "'tis"),
    ],
)  # fmt: skip
def test_dress_comes_off_in_the_best_reading(dressed: str, bare: str) -> None:
    """A model that now writes a box or bold letters has lost the form, not the skill."""
    assert undress(dressed) == bare
    if dressed == bare:
        return
    gold = sample(bare)
    tagged = grade(f"<think>t</think><answer>{dressed}</answer>", gold, FORM, MATCHERS["exact"])
    assert tagged[:1] + tagged[2:4] == (0, True, 1)  # the strict reading stays strict
    untagged = grade(f"<think>t</think>{dressed}", gold, FORM, MATCHERS["exact"])
    assert untagged[:1] + untagged[2:4] == (0, False, 1)
    assert grade(dressed, gold, WHOLE, MATCHERS["exact"])[:1] == (0,)
    assert grade(dressed, gold, WHOLE, MATCHERS["exact"]).lenient == 1
    assert grade(f"\\boxed{{{dressed}}}", gold, BOXED, MATCHERS["exact"]).lenient == 1


@pytest.mark.parametrize(
    ("reply", "form", "lenient"),
    [
        ("<answer>B</answer>", WHOLE, 1),  # tags are dress where the form has none
        ("<think>A or B</think> **B**", WHOLE, 1),
        ("<think>perhaps \\boxed{B}, perhaps", FORM, 0),  # cut off while thinking: no answer yet
        ("<think>perhaps \\boxed{B}, perhaps", WHOLE, 0),
        ("<think>A</think>I say \\boxed{B}", FORM, 1),
        ("<answer>**A**</answer><answer>**B**</answer>", FORM, 1),  # the last one, as without dress
        ("<answer>**B**</answer><answer>**A**</answer>", FORM, 0),
        ("**B**ut A", FORM, 0),
    ],
)
def test_the_best_reading_of_odd_replies(reply: str, form: AnswerForm, lenient: float) -> None:
    got = grade(reply, sample("B"), form, MATCHERS["letter"])
    assert (got.score, got.lenient) == (0, lenient)


def test_much_dress_is_seen_through_at_once() -> None:
    for text in (
        "\\text{" * 5000 + "}" * 5000,
        "**" * 40_000,
        "$" * 40_000,
        "`" * 9999,
        "\\boxed{" * 9999,
    ):
        undress(text)  # fmt: skip


@pytest.mark.parametrize(
    ("grader", "gold", "right", "wrong"),
    [
        ("letter", "C", ["C", "c", "(C)", "C.", "C:", " c) "], ["", "CC", "A or C", "cat", "D"]),
        ("number", "12", ["12", "12.0", "+12", "1.2e1", " 12 "], ["", "twelve", "112", "12 cm", "-12", "1 2", "nan", "inf"]),
        ("number", "1200", ["1,200", "1200"], ["1,20,0", "12,00"]),
        ("yesno", "no", ["no", "No.", "NO"], ["unknown", "no way", "yes", "none", "yes no", ""]),
        ("exact", "unanswerable", ["Unanswerable", "unanswerable."], ["answerable", "un answerable"]),
        ("by-kind", "red", ["red"], ["redder", "not red"]),
    ],
)  # fmt: skip
def test_matchers(grader: str, gold: str, right: list[str], wrong: list[str]) -> None:
    matcher = MATCHERS[grader]
    assert [matcher(answer, sample(gold)) for answer in right] == [1.0] * len(right)
    assert [matcher(answer, sample(gold)) for answer in wrong] == [0.0] * len(wrong)


def test_reward_is_nine_tenths_accuracy_and_one_tenth_form() -> None:
    def of(reply: str) -> float:
        return reward(grade(reply, sample("C", "letter"), FORM, MATCHERS["letter"]), WEIGHTS)

    assert of("<answer>C</answer>") == 1.0
    assert of("<answer>D</answer>") == pytest.approx(0.1)
    assert of("C") == 0.0


GOLDS = [
    ("letter", "C"),
    ("number", "12"),
    ("yesno", "no"),
    ("exact", "red star"),
    ("by-kind", "7"),
]
PIECES = st.sampled_from(
    ["<answer>", "</answer>", "<think>", "</think>", " ", "\n", "no", "unknown", "yes", "C", "(",
     "12", "1e999", "-", "red", "star", "É", "¹²", "\u2028", "\x00", "𝟏𝟐", "{", "\\boxed{", "A", "."]
)  # fmt: skip
REPLIES = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join))


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(REPLIES, st.sampled_from(GOLDS))
def test_no_reply_crashes_a_grader_and_scores_are_consistent(
    reply: str, pair: tuple[str, str]
) -> None:
    grader, gold = pair
    kind = "number" if grader == "by-kind" else "word"
    got = grade(reply, sample(gold, kind), FORM, MATCHERS[grader])
    assert 0 <= got.score <= got.lenient <= 1
    assert got.format_ok or got.score == 0
    if got.lenient:  # a right answer is there, whole
        assert MATCHERS[grader](got.extracted or "", sample(gold, kind)) == 1


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="xyzXYZ 3456789", max_size=30))
def test_an_answer_that_is_not_there_never_scores(text: str) -> None:
    for grader, gold in GOLDS[:4]:
        assert grade(text, sample(gold), FORM, MATCHERS[grader]).lenient == 0


@pytest.mark.parametrize("text", ["", ".", "-", "e5", "1e400", "٣x", "--1", "1,2,3"])
def test_what_spells_no_number(text: str) -> None:
    assert as_number(text) is None


@pytest.mark.parametrize("tokens", ["four", -7, 10**9, 3.0, True, [1], 0])
def test_a_number_of_tokens_that_is_none_is_not_graded(tokens: Any) -> None:
    """In every lane: predictions are files that anybody wrote."""
    suite = open_suite("nano")
    card = suite.card("counting")
    samples = load_split(card, "test")[:2]
    rows: list[dict[str, Any]] = [{"id": s.id, "reply": "a", "tokens": 1} for s in samples]
    assert len(graded(rows, card, samples, suite.protocol)) == 2
    with pytest.raises(CptBenchError, match="tokens") as caught:
        graded([rows[0], {**rows[1], "tokens": tokens}], card, samples, suite.protocol)
    assert samples[1].id in str(caught.value) and len(str(caught.value).splitlines()) == 1
    unknown = graded([rows[0], {**rows[1], "tokens": None}], card, samples, suite.protocol)
    assert unknown[1]["tokens"] is None
