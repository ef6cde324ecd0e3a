"""How sure verdicts are, corrected for their number, and what would decide the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt_bench.metrics import Interval, t_interval
from cpt_bench.study.claims import Claim, judged
from cpt_bench.study.evidence import Evidence
from cpt_bench.study.power import corrected, need, p_value


def claim(supports: str = "low > 0", refutes: str = "high < 0") -> Claim:
    return Claim.model_validate({
        "id": "one", "claim": "A.", "source": "B", "evidence": {"kind": "level"},
        "supports": supports, "refutes": refutes,
    })  # fmt: skip


def over_seeds(values: Any) -> Evidence:
    numbers = [float(v) for v in values]
    return Evidence(float(np.mean(numbers)), t_interval(numbers, "seeds"), len(numbers),
                    repeated=len(numbers), over="seeds")  # fmt: skip


VALUES = st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=8).filter(
    lambda v: float(np.std(v)) > 1e-2
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_p_is_student_s_two_sided_p(values: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats")
    found = p_value(claim(), over_seeds(values))
    expected = float(stats.ttest_1samp(values, 0).pvalue)
    assert found == pytest.approx(max(expected, 1e-9), rel=1e-3, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([("low > 0", "high < 0"), ("low > -2", "high < -2"),
                                ("low > -2 and high < 2", "high < -2 or low > 2")]))  # fmt: skip
def test_a_claim_is_decided_where_p_is_below_5_percent(
    values: list[float], rules: tuple[str, str]
) -> None:
    found, asked = over_seeds(values), claim(*rules)
    p = p_value(asked, found)
    if abs(p - 0.05) > 1e-6:
        assert (judged(asked, found).verdict != "undecided") == (p < 0.05)


def test_both_ends_of_a_tie_have_to_be_excluded() -> None:
    """'to two points' is as sure as the less sure of its two ends."""
    found = over_seeds([0.9, 1.0, 1.1])
    both = p_value(claim("low > -2 and high < 2", "high < -2 or low > 2"), found)
    assert both == pytest.approx(p_value(claim("high < 2", "low > 2"), found), rel=1e-3)
    assert both > p_value(claim("low > -2", "high < -2"), found)


def test_holm_multiplies_the_smallest_by_the_number_of_measured_claims() -> None:
    sure, fair = over_seeds([5.0, 5.1, 4.9]), over_seeds([1.0, 1.2, 0.6])
    unclear, absent = over_seeds([1.0, -1.0, 0.3]), Evidence(None, None, 0, missing="runs")
    evidence = [fair, absent, sure, unclear]
    claims = [judged(claim(), e) for e in evidence]
    assert [c.verdict for c in claims] == ["supported", "undecided", "supported", "undecided"]
    found = corrected(claims, evidence)
    raw = [p_value(claim(), e) for e in (fair, sure, unclear)]
    assert found[1] == (None, None, "undecided")
    assert found[2][1] == pytest.approx(3 * raw[1]) and found[2][2] == "supported"
    assert found[0][1] == pytest.approx(2 * raw[0]) and found[0][2] == "undecided"
    assert found[3][1] == pytest.approx(max(raw[2], 2 * raw[0]))
    # With fewer claims on the page, the same evidence is enough.
    assert corrected(claims[:1], evidence[:1])[0][2] == "supported"


@pytest.mark.parametrize("gap", [0.5, 0.8, 1.5])
def test_the_seeds_that_are_named_decide_four_times_in_five(gap: float) -> None:
    """Simulated: with the true mean and spread as they were measured, so many seeds decide."""
    three = [gap - 1.0, gap, gap + 1.0]  # mean gap, standard deviation 1
    asked = need(claim(), over_seeds(three))
    assert asked.have == 3 and asked.of == "seeds" and asked.need is not None and asked.need > 3
    assert asked.more == asked.need - 3
    rng = np.random.default_rng(3)
    runs = rng.normal(gap, 1.0, (600, asked.need))
    share = np.mean([judged(claim(), over_seeds(r)).verdict == "supported" for r in runs])
    assert 0.74 < share < 0.92
    fewer = rng.normal(gap, 1.0, (600, max(2, asked.need // 2)))
    assert np.mean([judged(claim(), over_seeds(r)).verdict == "supported" for r in fewer]) < 0.65


def test_what_no_number_of_runs_decides_says_why() -> None:
    both = claim("low > 0 and least > 0", "high < 0 and most < 0")
    curve = Evidence(1.0, Interval(-0.5, 2.5, 0.95, "t, redrawn over runs"), 30,
                     details={"least": -0.2, "most": 3.0})  # fmt: skip
    asked = need(both, curve)
    assert (
        asked.need is None
        and asked.more is None
        and asked.why == ("the sign changes between single levels of learning")
    )
    one = need(both, curve._replace(details={"least": 0.2, "most": 3.0}))
    # Half the interval is 1.5 and has to be 1 (1.96 + 0.84 over 1.96): (1.5 · 1.43)² · 30 runs.
    assert one.need == pytest.approx(30 * (1.5 * (1.95996 + 0.84162) / 1.95996) ** 2, rel=0.02)
    assert one.of == "runs"
    tiny = need(claim(), over_seeds([1e-6, 1.0, -1.0]))
    assert tiny.need is None and tiny.why == "it would take more than 3,000 seeds"
    on_it = Evidence(0.0, Interval(-1.0, 1.0, 0.95, "t over 3 seeds"), 3, repeated=3, over="seeds")
    assert need(claim(), on_it).why == "the value is on the threshold"


def test_a_decided_claim_needs_no_more() -> None:
    asked = need(claim(), over_seeds([5.0, 5.1, 4.9]))
    assert asked.need == asked.have == 3 and asked.more == 0
