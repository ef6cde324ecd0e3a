"""Ours against the data sets' own scorers, on ten thousand generated replies each.

Where ours differs, the reply must be of a kind that is listed here with its reason, and
every kind that is listed must occur. ``docs/cpt7.md`` has the same list for people.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction

import pytest

from cpt_bench.grading import MATCHERS
from cpt_bench.grading.numbers import plain
from cpt_bench.grading.official import parse_mmlu_pro, parse_mmmu_letter, parse_scienceqa
from cpt_bench.grading.summary import Graded, summarise
from cpt_bench.grading.vqa import CONTRACTIONS, normalise_evalai, normalise_official
from cpt_bench.suite import Sample
from tests.support import generated_replies as generated
from tests.support import published_scorers as published

N = 10_000
ALL_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def sample(
    *golds: str, kind: str = "word", choices: Iterable[str] = (), annotators: Iterable[str] = ()
) -> Sample:
    return Sample(
        id="s",
        question="?",
        answers=golds,
        kind=kind,
        choices=tuple(choices),
        annotators=tuple(annotators),
    )


Reasons = dict[str, Callable[..., bool]]


def explained(differences: Iterable[tuple[object, ...]], reasons: Reasons) -> Counter[str]:
    """How many differences each reason explains; one that none does fails the test."""
    counts: Counter[str] = Counter()
    for case in differences:
        found = [reason for reason, holds in reasons.items() if holds(*case)]
        assert found, f"unexplained: {case!r}"
        counts[found[0]] += 1
    assert counts.keys() == reasons.keys(), f"never met: {reasons.keys() - counts.keys()}"
    return counts


# ------------------------------------------------------------------------------------- MMMU

OPEN = [
    *generated.numbers(20261201, N),
    *((reply, golds[0]) for reply, golds in generated.answers(20261202, N) if golds[0]),
]


def test_mmmu_official_is_mmmu_s_evaluation() -> None:
    for reply, gold in OPEN:
        mine = MATCHERS["mmmu-official"](reply, sample(gold, kind="open"))
        assert mine == float(published.mmmu_open(reply, [gold])), (reply, gold)


def last_words(reply: str) -> str:
    """The last line from its last signal on: where the stricter grader looks."""
    line = reply.strip().rstrip(".").lower().split("\n")[-1]
    tails = [line.split(s)[-1].strip() for s in [*published.SIGNALS, "="] if s in line]
    return min(filter(None, tails), key=len, default=line)


def named(text: str) -> set[float]:
    """The numbers that a reader finds: digits with separators, decimals and exponents."""
    found = re.findall(r"-?(?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?", plain(text).lower())
    return {round(float(number.replace(",", "")), 2) for number in found}


def is_number(text: str) -> bool:
    return isinstance(published.mmmu_forms(text)[0], float)


MMMU_STRICTER: Reasons = {
    "the gold stands in an earlier sentence, not in the last": lambda reply, gold: (
        not published.mmmu_open(last_words(reply), [gold])
    ),
    "more than one number is named at the end": lambda reply, gold: (
        is_number(gold) and len(named(last_words(reply))) > 1
    ),
    "the gold is a piece of a longer number (249 in 1,249)": lambda reply, gold: (
        is_number(gold) and not named(gold) & named(last_words(reply))
    ),
    "other words stand around the gold, or it is inside one (zero in subzero)": lambda reply, gold: (
        not is_number(gold) and last_words(reply) != gold.strip().lower()
    ),
}
MMMU_MORE: Reasons = {
    "another minus sign, full-width digits or thin spaces": lambda reply, gold: (
        not last_words(reply).isascii()
    ),
    "decimals after separators, in a sentence (1,249.50 cm)": lambda reply, gold: (
        re.search(r"\d,\d{3}\.\d", last_words(reply)) is not None
    ),
    "a number begins with its decimal point (.25; as published, 25)": lambda reply, gold: (
        re.match(r"\W*\.\d", reply) is not None
    ),
    "a mark stands next to an answer of one letter ('a!')": lambda reply, gold: (
        len(gold) == 1 and not is_number(gold) and re.sub(r"\W", "", last_words(reply)) == gold
    ),
}


def test_mmmu_differs_from_mmmu_s_evaluation_only_as_listed() -> None:
    stricter, more = [], []
    for reply, gold in OPEN:
        mine = MATCHERS["mmmu"](reply, sample(gold, kind="open"))
        theirs = float(published.mmmu_open(reply, [gold]))
        (stricter if mine < theirs else more if mine > theirs else []).append((reply, gold))
    explained(stricter, MMMU_STRICTER)
    explained(more, MMMU_MORE)


def test_a_number_alone_is_right_in_mmmu_wherever_it_is_in_mmmu_s_evaluation() -> None:
    """No gold is lost for its size or spelling: 1,249 and 1.5e3 once were."""
    checked = 0
    for value in [0, 7, 12.5, 1249, -1249, 7_243_000, 1500, 0.25, -0.5, 1e6, 123456.78]:
        gold = f"{value:g}" if abs(value) < 1e5 else f"{value:.2f}"
        for spelled in (f"{value:,}", f"{value}", f"{value:.2f}", f"{value:e}", f"{value:,.2f}"):
            for frame in (
                "{}",
                "The answer is {}.",
                "so {}",
                "x = {}",
                "It is {}\n",
                "\nanswer {}",
            ):
                reply = frame.format(spelled)
                theirs = published.mmmu_open(reply, [gold])
                assert MATCHERS["mmmu"](reply, sample(gold, kind="open")) >= theirs, (reply, gold)
                checked += theirs
    assert checked > 200


def test_mmmu_s_letters() -> None:
    for reply, options in generated.letters(20261203, N):
        theirs = published.mmmu_letter(reply, dict(zip(ALL_LETTERS, options, strict=False)))
        for name in ("mmmu", "mmmu-official"):
            one = sample("A", kind="letter", choices=options)
            assert parse_mmmu_letter(reply, one) == theirs, (reply, options)
            assert MATCHERS[name](reply, one) == (theirs == "A")


# --------------------------------------------------------------------------------- MMLU-Pro


@pytest.mark.parametrize(("name", "level"), [("mmlu-pro-1", 1), ("mmlu-pro", 2), ("mmlu-pro-3", 3)])
def test_mmlu_pro_s_patterns(name: str, level: int) -> None:
    for reply, options in generated.letters(20261204, N, most=10):
        theirs = published.mmlu_pro(reply, level)
        assert parse_mmlu_pro(reply, level) == theirs, reply
        for gold in "AB":
            right = MATCHERS[name](reply, sample(gold, kind="letter", choices=options))
            assert right == (theirs == gold)


# -------------------------------------------------------------------------------- ScienceQA

BEYOND: Reasons = {
    "a letter beyond the options is no answer": lambda reply, options: any(
        letter not in ALL_LETTERS[: len(options)]
        for letter in re.findall(r"^[A-E](?=\. )|(?<=The answer is )[A-Z]", reply)
    ),
}


def test_scienceqa_differs_from_llava_s_only_where_letters_are_beyond_the_options() -> None:
    differences = []
    for reply, options in generated.letters(20261205, N):
        mine = parse_scienceqa(reply, sample("A", kind="letter", choices=options))
        if mine != published.scienceqa(reply.strip(), len(options)):
            differences.append((reply.strip(), options))
    explained(differences, BEYOND)


# ------------------------------------------------------------------------------------- POPE

POPE: Reasons = {
    "neither yes nor no is no answer (as published, a yes)": lambda reply: (
        not ({"yes", "no", "not"} & set(re.findall(r"\w+", reply.split(".")[0].lower())))
    ),
    "no in capitals, or with a mark next to it (as published, a yes)": lambda reply: (
        re.search(r"\b(?:NO|no|No|not|Not)\b", reply.split(".")[0]) is not None
    ),
}


def test_pope_official_is_pope_s_evaluation() -> None:
    rows = generated.yes_no(20261206, N)
    samples = [sample(gold, kind="yesno") for _, gold in rows]
    scores = [
        MATCHERS["pope-official"](row[0], one) for row, one in zip(rows, samples, strict=True)
    ]
    given = [published.pope(reply) for reply, _ in rows]
    assert scores == [float(s == gold) for s, (_, gold) in zip(given, rows, strict=True)]
    replies = [Graded(row[0], score, True) for row, score in zip(rows, scores, strict=True)]
    ours = summarise("pope-official", samples, replies)
    theirs = published.pope_figures(given, [gold for _, gold in rows])
    figures = {**ours["yes_no"], "accuracy": ours["accuracy"]}
    assert {name: figures[name] for name in theirs} == {
        name: round(100 * value, 4) for name, value in theirs.items()
    }


def test_pope_differs_from_pope_s_evaluation_only_as_listed() -> None:
    differences = [
        (reply,)
        for reply, gold in generated.yes_no(20261207, N)
        if MATCHERS["pope"](reply, sample(gold)) != float(published.pope(reply) == gold)
    ]
    explained(differences, POPE)


# ----------------------------------------------------------------------------- VQA, TextVQA

ANNOTATED = [
    *generated.answers(20261208, N),
    *((word, [word, other] * 5) for word, other in zip(CONTRACTIONS, reversed(CONTRACTIONS), strict=True)),
    *((word, [full] * 9 + ["x"]) for word, full in CONTRACTIONS.items()),
]  # fmt: skip


def nothing_left(normalise: Callable[[str], str], texts: Iterable[str]) -> bool:
    return any(not normalise(text) for text in texts)


VQA_OFFICIAL: Reasons = {
    "an answer that normalises to nothing ('the', '?') is compared as it stands": (
        lambda reply, annotators: nothing_left(normalise_official, [reply, *annotators])
    ),
}
TEXTVQA: Reasons = {
    "an answer that normalises to nothing ('the', '?') is compared as it stands": (
        lambda reply, annotators: nothing_left(normalise_evalai, [reply, *annotators])
    ),
}
VQA: Reasons = {
    **VQA_OFFICIAL,
    "normalised also where all ten annotators agree": lambda reply, annotators: (
        len({a.strip() for a in annotators}) == 1
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs", "reasons"),
    [
        ("vqa-official", published.vqa, VQA_OFFICIAL),
        ("vqa-evalai", published.textvqa, TEXTVQA),
        ("vqa", published.vqa, VQA),
    ],
)
def test_soft_accuracy_differs_only_as_listed(
    name: str, theirs: Callable[..., float], reasons: Reasons
) -> None:
    differences = []
    for reply, annotators in ANNOTATED:
        mine = MATCHERS[name](reply, sample(annotators[0], annotators=annotators))
        if mine != pytest.approx(theirs(reply, annotators, CONTRACTIONS)):
            differences.append((reply, annotators))
    explained(differences, reasons)


# -------------------------------------------------------------------------------------- GQA

GQA: Reasons = {
    "case and white space around do not count": lambda reply, gold: reply.strip() != gold.strip(),
}


def test_gqa_differs_from_equality_only_in_case() -> None:
    differences = []
    for reply, (gold, *_) in generated.answers(20261209, N):
        mine = MATCHERS["gqa"](reply, sample(gold))
        if mine != float(reply.strip() == gold):
            assert mine == 1 and reply.strip().lower() == gold.lower()
            differences.append((reply, gold))
    explained(differences, GQA)


# ---------------------------------------------------------------------------------- formulas


HEADS = ["", "", "", "x = ", "m∠4 = ", "m\\angle ABC = ", "\\widehat{AB} = ", "AB = ", "θ = "]
TAILS = ["", "", "", "^\\circ", "°", "º", " cm", "\\text{ cm}", " m", " units", "."]
BODIES = ["{a}", "{a}\\sqrt{{{b}}}", "{a} \\sqrt {{ {b} }}", "{a}√{b}", "\\frac{{{a}}}{{{b}}}", "{a}/{b}", "{a}\\pi", "{a}π",
          "\\sqrt{{{a}}}", "{a} \\frac {{ {a} }} {{ {b} }}", "-{a}", "−{a}", "{a}.5"]  # fmt: skip


def formulas(seed: int, n: int) -> list[tuple[str, str]]:
    """(reply, gold): roots, fractions and π with names in front and units behind."""
    rng, out = random.Random(seed), []
    for _ in range(n):
        values = {"a": rng.randint(1, 12), "b": rng.randint(2, 9)}
        gold = rng.choice(BODIES).format(**values)
        given = gold if rng.random() < 0.6 else rng.choice(BODIES).format(**values)
        if gold.count("/") and rng.random() < 0.3:
            given = f"{2 * values['a']}/{2 * values['b']}"
        out.append((rng.choice(HEADS) + given + rng.choice(TAILS), gold))
    return out


@pytest.fixture(scope="module")
def library() -> dict[tuple[str, str], bool]:
    """(reply, gold) to mathruler's own verdict: at least 10,000 different pairs."""
    grader = pytest.importorskip("mathruler.grader")
    pairs = {*generated.numbers(20261210, 9600), *formulas(20261211, 600)}
    assert len(pairs) >= 10_000, len(pairs)
    return {
        (reply, gold): bool(grader.grade_answer(reply.strip(), gold))
        for reply, gold in pairs
    }  # fmt: skip


@pytest.mark.slow
def test_mathruler_is_the_library_s_own_verdict(library: dict[tuple[str, str], bool]) -> None:
    """The publication's grader, through the helper process, with no difference."""
    for (reply, gold), verdict in library.items():
        assert MATCHERS["mathruler"](reply, sample(gold)) == verdict, (reply, gold)


def value(text: str) -> Fraction | None:
    """The number that a reply of nothing else spells, in any of its dresses; None for others."""
    text = plain(text.strip().strip("$").strip()).rstrip(".").strip()
    text = re.sub(r"^(?:x = |= )|(?: ?(?:cm|%|°|units|dollars|kg|m/s)|\\text\{ cm\})$", "", text)
    text = re.sub(r"(?<=\d)(?:,|\{,\}|\\,|,\\!)(?=\d{3}(?!\d))", "", text).replace("$", "", 1)
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


MATH_MORE: Reasons = {
    "a name or an equals sign stands in front (m∠4 = 79)": lambda reply, gold: "=" in reply,
    "a unit or a mark of degrees stands behind (79 units, 79°, 79 m)": lambda reply, gold: (
        re.search(r"(?:m|units|cm|°|º|kg|\^\\circ|[%])\W*$", reply) is not None
    ),
    "another minus sign, full-width digits or thin spaces": lambda reply, gold: (
        not (reply + gold).isascii()
    ),
    "a full stop ends it, or LaTeX separators": lambda reply, gold: (
        reply.strip().endswith(".") or "{,}" in reply or "\\," in reply or ",\\!" in reply
    ),
    "an equal value in another form (3 for \\sqrt{9}, 2 for 4/2)": lambda reply, gold: (
        "/" in reply + gold or "sqrt" in reply + gold
    ),
}
MATH_STRICTER: Reasons = {
    "a unit that is none of length or angle (dollars, kg, m/s)": lambda reply, gold: (
        re.search(r"dollars|kg|m/s", reply) is not None
    ),
    "another answer or other words stand next to it": lambda reply, gold: (
        set(re.findall(r"[A-Za-z]{2,}", reply)) - {"text", "cm", "units"} != set()
    ),
    "a mark stands behind it, or brackets around it with its unit": lambda reply, gold: (
        reply.strip()[-1] in "!;)$"
    ),
    "digits parted by spaces are several numbers": lambda reply, gold: (
        re.search(r"\d \d", reply) is not None
    ),
}


@pytest.mark.slow
def test_math_differs_from_mathruler_only_as_listed(library: dict[tuple[str, str], bool]) -> None:
    more, stricter = [], []
    for (reply, gold), theirs in library.items():
        mine = MATCHERS["math"](reply, sample(gold, kind="math"))
        if mine != theirs:
            (more if mine else stricter).append((reply, gold))
    explained(more, MATH_MORE)
    explained(stricter, MATH_STRICTER)


@pytest.mark.slow
def test_a_number_in_any_dress_is_graded_by_its_value(
    library: dict[tuple[str, str], bool],
) -> None:
    """``math`` against exact fractions, wherever the reply is a number and nothing else."""
    checked = 0
    for reply, gold in library:
        given, meant = value(reply), value(gold)
        if given is None or meant is None or "kg" in reply or "m/s" in reply or "dollars" in reply:
            continue
        assert MATCHERS["math"](reply, sample(gold, kind="math")) == (given == meant), (reply, gold)
        checked += 1
    assert checked > 1000
