"""What the page says of a claim: the number that was measured, and where its interval lies."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cpt_bench.metrics import Interval
from cpt_bench.study.claims import Claim, holds, judged, read_claims
from cpt_bench.study.evidence import KINDS, Evidence
from cpt_bench.study.words import measured, reason
from tests.support.places import STUDY

CLAIMS = read_claims(STUDY / "claims.yaml")


def claim(supports: str, refutes: str, kind: str = "difference") -> Claim:
    return Claim.model_validate({
        "id": "one", "claim": "A.", "source": "B", "evidence": {"kind": kind},
        "supports": supports, "refutes": refutes,
    })  # fmt: skip


PLAIN = ("low > 0", "high < 0")
TIE = ("low > -2 and high < 2", "high < -2 or low > 2")
LEVELS = ("low > 0 and least > 0", "high < 0 and most < 0")


@pytest.mark.parametrize(
    ("rules", "interval", "ends", "words"),
    [
        (PLAIN, (0.5, 2), (), "the interval is wholly above 0"),
        (PLAIN, (-3, -1), (), "the interval is wholly below 0"),
        (PLAIN, (-3, 1), (), "the interval contains 0"),
        (PLAIN, (0, 1), (), "the interval contains 0"),
        (("low > -4", "high < -4"), (-9.6, -7.2), (), "the interval is wholly below -4"),
        (("high < 0.5", "low > 0.5"), (0.1, 0.4), (), "the interval is wholly below 0.5"),
        (TIE, (-1, 1), (), "the interval is wholly between -2 and 2"),
        (TIE, (-1, 3), (), "the interval contains 2"),
        (TIE, (-9, 5), (), "the interval contains -2 and 2"),
        (TIE, (-9, -5), (), "the interval is wholly below -2"),
        (TIE, (3, 5), (), "the interval is wholly above 2"),
        (LEVELS, (0.1, 1), (0.4, 0.8),
         "the interval is wholly above 0 (0.4 to 0.8 at single levels of learning)"),
        (LEVELS, (-1, 1), (-0.6, 6.9),
         "the interval contains 0 (-0.6 to 6.9 at single levels of learning)"),
        (LEVELS, (0.1, 1), (-0.6, 6.9),
         "the interval is on one side, the single values are not "
         "(-0.6 to 6.9 at single levels of learning)"),
    ],
)  # fmt: skip
def test_where_an_interval_lies(
    rules: tuple[str, str], interval: tuple[float, float], ends: tuple[float, ...], words: str
) -> None:
    details = dict(zip(("least", "most"), ends, strict=False))
    found = Evidence(sum(interval) / 2, Interval(*interval), 6, details=details)
    asked = judged(claim(*rules, kind="matched"), found)
    assert reason(asked) == words
    assert ("wholly" in words) == (holds(asked.supports, found) or holds(asked.refutes, found))


def test_what_is_missing_is_the_reason_of_a_claim_without_a_number() -> None:
    found = Evidence(None, None, 1, missing="pretrain has 1 of 3 seeds with FM")
    assert reason(judged(claim(*PLAIN), found)) == (
        "not measured yet: pretrain has 1 of 3 seeds with FM"
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"kind": "level", "key": "FM", "method": "sft"}, "FM of sft"),
        ({"kind": "difference", "key": "FM", "first": "a", "second": "b"}, "FM, a minus b"),
        ({"kind": "matched", "key": "FM", "first": "a", "second": "b"},
         "FM, a minus b, at matched learning"),
        ({"kind": "orders", "key": "FM", "first": "a", "second": "b"},
         "FM, a minus b, mean over the orders"),
        ({"kind": "ratio", "key": "FM", "first": "a@1e-4", "second": "a"},
         "FM of a at learning rate 1e-4, divided by FM of a"),
        ({"kind": "share", "parts": ["X", "Y"], "whole": "Z", "method": "a"},
         "the share of X and Y in Z, a"),
        ({"kind": "law", "x": "step", "y": "tasks", "methods": "rewarded"},
         "R² of earlier tasks predicted by step²; RFT methods, after every task"),
        ({"kind": "law_gap", "first": "kl_new", "second": "step", "y": "general", "methods": "all",
          "stages": "first"},
         "R² of general capability predicted by KL on the new task's prompts, minus that by step²; "
         "all methods, after the first task"),
    ],
)  # fmt: skip
def test_what_is_measured(asked: dict[str, Any], words: str) -> None:
    assert measured(asked) == words


def test_every_kind_of_evidence_has_words() -> None:
    assert {c.evidence["kind"] for c in CLAIMS} == {*KINDS}


@pytest.mark.parametrize("found", CLAIMS, ids=lambda c: c.id)
def test_the_published_claims_have_words(found: Claim) -> None:
    line = f"{measured(found.evidence)}; {reason(found)}"
    assert "None" not in line and not re.search(r"[<>]", line)
    decided = found.verdict != "undecided"
    assert decided == ("wholly" in line)
