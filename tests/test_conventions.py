"""docs/conventions.md: two values under one name, each computed here and compared with the page.

The formulas of others are written again from reading their code at the commit that the page names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cpt_bench.grading import find_matcher, grade
from cpt_bench.metrics import evaluate, matrix_from_json
from cpt_bench.suite import Sample
from cpt_bench.suite.protocol import AnswerForm

PAGE = (Path(__file__).parents[1] / "docs/conventions.md").read_text()
A = [[80], [70, 90], [60, 85, 75], [50, 60, 70, 88]]
B = [[50], [62, 70], [66, 74, 80], [64, 78, 76, 60]]

Row = list[float | None]


def ours(rows: object, *keys: str) -> Row:
    found = evaluate(matrix_from_json({"accuracy": rows}))
    return [found[key]["value"] for key in keys]


def both(key: str, sign: int = 1) -> Row:
    return [sign * value for rows in (A, B) for value in ours(rows, key)]  # type: ignore[operator]


def square(rows: list[list[int]]) -> np.ndarray:
    """T x T, NaN above the diagonal."""
    out = np.full((len(rows), len(rows)), np.nan)
    for t, row in enumerate(rows):
        out[t, : len(row)] = row
    return out


# ----------------------------------------------------------------- others' formulas, written again


def over_the_whole_last_row(r: np.ndarray) -> float:
    """OnPolicyReplay, tools/show_result.py."""
    return sum(r[-1, j] - r[j, j] for j in range(len(r))) / len(r)


def f_mean(r: np.ndarray) -> float:
    """MLLM-CTBench, evaluate_matrix.py: peak minus last, the mean of what is not NaN."""
    return float(np.nanmean(np.nanmax(r, axis=0) - r[-1]))


def nan_bwt(r: np.ndarray) -> float:
    return float(np.nanmean([r[-1, j] - r[j, j] for j in range(len(r) - 1)]))


def frgt(r: np.ndarray) -> float:
    """LibContinual, compute_frgt: tasks 1 to T-2, divided by T-1."""
    return sum(r[j, j] - r[-1, j] for j in range(len(r) - 2)) / (len(r) - 1)


def bwt_without_neighbours(r: np.ndarray) -> float:
    """LibContinual, compute_bwt: j <= t-2 in each row t, divided by all pairs."""
    tasks = len(r)
    total = sum(r[t, j] - r[j, j] for t in range(2, tasks) for j in range(t - 1))
    return 2 * total / (tasks * (tasks - 1))


def smallest_difference(r: np.ndarray) -> float:
    """MLLM-CTBench, instruct_blip: cells that were not evaluated are 0."""
    filled = np.nan_to_num(r)
    return float((filled[-1] - filled).min(0).mean())


def mammoth_forgetting(r: np.ndarray) -> float:
    filled = np.nan_to_num(r)
    return float(np.mean((filled.max(0) - filled[-1])[:-1]))


def theirs(formula: Callable[[np.ndarray], float]) -> Row:
    return [formula(square(rows)) for rows in (A, B)]


# -------------------------------------------------------------------------------------- the cases


def divided_by() -> list[Row]:
    assert theirs(over_the_whole_last_row) == pytest.approx(both("BWT_T"))
    return [both("BWT"), theirs(over_the_whole_last_row)]


def signed() -> list[Row]:
    return [both("BWT"), both("Forgetting_diag"), theirs(f_mean)]


def the_peak() -> list[Row]:
    assert theirs(mammoth_forgetting) == pytest.approx(both("Forgetting_max"))
    return [both("Forgetting"), theirs(mammoth_forgetting), both("FM_paper")]


def left_out() -> list[Row]:
    return [both("Forgetting_diag"), theirs(frgt), both("BWT_all"), theirs(bwt_without_neighbours)]


def never_positive() -> list[Row]:
    assert theirs(smallest_difference) == pytest.approx(both("FM_paper"))
    rng = np.random.default_rng(3)
    assert all(smallest_difference(rng.uniform(0, 100, (5, 5))) <= 0 for _ in range(200))
    return [both("BWT"), theirs(smallest_difference)]


def forward() -> list[Row]:
    base, before = [20, 30, 40, 50], [36, 44, 47]
    rows = [base, [70, 36, 41, 50], [66, 75, 44, 49], [60, 71, 80, 47], [58, 66, 74, 85]]
    assert [rows[j][j] for j in (1, 2, 3)] == before  # the row before the stage, task j
    same_weights = [rows[j][j] - before[j - 1] for j in (1, 2, 3)]
    return [ours(rows, "FWT"), [float(np.mean(same_weights))]]


def lost_cells() -> list[Row]:
    r = square(A)
    r[3, 0] = np.nan
    holed = [*A[:3], [None, *A[3][1:]]]
    # F_mean divides by T and has the last row among the peaks: FM_paper with the sign turned.
    full = [*ours(A, "AvgAcc", "BWT"), -ours(A, "FM_paper")[0]]  # type: ignore[operator]
    found = evaluate(matrix_from_json({"accuracy": holed}))
    assert found["AvgAcc"]["missing"]  # named, not only absent
    return [
        full,
        [float(np.nanmean(r[-1])), nan_bwt(r), f_mean(r)],
        ours(holed, "AvgAcc", "BWT", "FM_paper"),
    ]


def pooled() -> list[Row]:
    sizes, right = np.array([1000, 100]), np.array([900, 40])
    return [ours([[90], [90, 40]], "AvgAcc"), [100 * right.sum() / sizes.sum()]]


def learns_nothing() -> list[Row]:
    base = [30, 40, 50]
    unchanged = [base] * 4
    sft = [base, [50, 40, 50], [45, 60, 50], [45, 55, 70]]
    keys = ("Learn", "AvgAcc", "FM")
    return [ours(unchanged, *keys), ours(sft, *keys)]


def another_base() -> list[Row]:
    return [[54.2 - 52.1], [54.2 - 58.6]]


def part_credit() -> list[Row]:
    """CRG, reasoning_gym/reward.py, for replies that have the form."""

    def reward(answer: str, gold: str) -> float:
        inside = len(gold) / len(answer) if gold in answer else 0.0
        return 0.2 + 0.8 * (1.0 if answer == gold else inside)

    return [[score("exact", a, "42"), reward(a, "42")] for a in ("42", "x = 42", "43")]


def half_the_options() -> list[Row]:
    def mrcl(answer: set[str], gold: set[str]) -> float:
        return 1.0 if answer == gold else 0.5 if answer and answer <= gold else 0.0

    gold = {"A", "B"}
    out: list[Row] = []
    for answers in ([gold, {"A"}, {"A"}, {"A"}], [{"A"}] * 4):
        out.append([100 * float(np.mean([a == gold for a in answers])),
                    100 * float(np.mean([mrcl(a, gold) for a in answers]))])  # fmt: skip
    return out


def unanswered() -> list[Row]:
    replies: list[bool | None] = [True] * 6 + [False] * 2 + [None] * 2
    answered = [r for r in replies if r is not None]
    return [[100 * sum(map(bool, replies)) / len(replies)], [100 * sum(answered) / len(answered)]]


def score(name: str, reply: str, gold: str, kind: str = "word", **more: object) -> float:
    sample = Sample(id="1", question="?", answers=(gold,), kind=kind, **more)
    return find_matcher(name)(reply, sample)


def inside_a_word() -> list[Row]:
    """MLLM-CTBench, reeval_clmm.py, sc_open: its first two conditions."""
    cases = [("no", "unknown"), ("no", "no"), ("cat", "a dog, a cat, a bird or a fish")]
    return [[float(gold in reply), score("exact", reply, gold)] for gold, reply in cases]


def annotators() -> list[Row]:
    out: list[Row] = []
    for n in (1, 2, 3):
        said = ("left",) * n + tuple(f"other {i}" for i in range(10 - n))
        out.append([1.0, min(1.0, n / 3), score("vqa", "left", "left", annotators=said)])
    return out


def as_published() -> list[Row]:
    letters = tuple("option " + c for c in "ABCDEFGHIJ")
    i = ("I do not know.", "I", "letter")
    return [
        [score("mmlu-pro-3", *i, choices=letters), score("mmlu-pro", *i, choices=letters)],
        [score(n, "What a nice picture.", "yes", "yesno") for n in ("pope-official", "pope")],
        [score(n, "The answer is a cart.", "art") for n in ("mmmu-official", "mmmu")],
    ]


def two_prompts() -> list[Row]:
    tags = {"open": "<answer>", "close": "</answer>", "thought": ("<think>", "</think>")}
    forms = (AnswerForm(kind="whole"), AnswerForm(kind="boxed", **tags))
    sample = Sample(id="1", question="?", answers=("12",), kind="number")
    replies = ("12", r"The sides are 3 and 4, so the area is \boxed{12}")
    exact = find_matcher("exact-case")
    return [[grade(reply, sample, form, exact).score for form in forms] for reply in replies]


CASES: dict[str, Callable[[], list[Row]]] = {
    "BWT divided by T, or by T − 1": divided_by,
    "Forgetting, signed both ways": signed,
    "May the last row be the peak?": the_peak,
    "A task left out, its divisor kept": left_out,
    "A backward transfer that cannot be positive": never_positive,
    "A forward transfer that is zero": forward,
    "A mean over lost cells": lost_cells,
    "Average accuracy, of tasks or of samples": pooled,
    "A method that learns nothing forgets nothing": learns_nothing,
    "Somebody else's base": another_base,
    "A reward with part credit": part_credit,
    "Half a point for half the options": half_the_options,
    "Unanswered questions that leave the divisor": unanswered,
    "The gold found inside another word": inside_a_word,
    "One annotator among ten": annotators,
    "A published grader that gives points to anything": as_published,
    "Two paradigms, two prompts": two_prompts,
}


def sections() -> dict[str, str]:
    parts = re.split(r"^### (.+)$", PAGE.partition("\n## What follows")[0], flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def printed(section: str) -> list[list[str]]:
    """The cells of the section's table that are numbers or null, row by row."""
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    number = re.compile(r"-?\d+\.\d\d|null")
    return [[c for c in map(str.strip, line.split("|")) if number.fullmatch(c)] for line in lines]


def as_printed(value: float | None) -> str:
    return "null" if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def test_every_section_has_a_case_and_every_case_a_section() -> None:
    assert list(sections()) == list(CASES)


@pytest.mark.parametrize("title", CASES)
def test_the_page_prints_what_comes_out(title: str) -> None:
    expected = [[as_printed(value) for value in row] for row in CASES[title]()]
    assert printed(sections()[title]) == expected


def test_each_case_shows_two_different_values() -> None:
    """A case whose sides agree on the fixture shows nothing."""
    for title, case in CASES.items():
        assert len({value for row in case() for value in row}) > 1, title


def test_the_code_that_was_read_is_named_with_its_commit() -> None:
    for title, text in sections().items():
        if "*Read" in text:
            assert re.search(r"`[0-9a-f]{7}`|in the same file", text), title


def test_continual_reasoning_gym_s_identity() -> None:
    """Its TLG is our diagonal minus the row above; with it, AvgAcc falls into four parts."""
    rng = np.random.default_rng(8)
    for tasks in (2, 5, 7):
        r = rng.uniform(0, 100, (tasks + 1, tasks))
        found = evaluate(matrix_from_json({"accuracy": r.tolist()}))
        base, final, fwt, bwt = (found[k]["value"] for k in ("BaseAcc", "AvgAcc", "FWT", "BWT"))
        tlg = np.mean([r[j + 1, j] - r[j, j] for j in range(tasks)])
        share = (tasks - 1) / tasks
        assert final == pytest.approx(base + share * fwt + tlg + share * bwt)
