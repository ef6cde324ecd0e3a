"""Curves of learning against keeping, and laws of forgetting, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cpt_bench.metrics import quadratic
from cpt_bench.study import laws, pareto
from cpt_bench.study.claims import Claim, judge
from cpt_bench.study.points import Point, Points, Stage
from cpt_bench.suite import open_suite


def point(
    method: str, rate: float, seed: int, learned: float, kept: float, stages: tuple[Stage, ...] = ()
) -> Point:
    numbers = {"LearnGain": learned, "FM": kept}
    return Point(
        f"{method}-{rate}-{seed}", method, rate, False, seed, ("a", "b"), False, numbers, stages
    )


def test_a_curve_is_the_upper_edge_from_the_base_on() -> None:
    means = np.array([[4.0, -1.0], [8.0, -3.0], [6.0, -5.0], [-1.0, 2.0]])
    # (6, -5) learned less than (8, -3) and kept less; what learned nothing is no point.
    assert pareto.curve(means).tolist() == [[0, 0], [4, -1], [8, -3]]
    assert pareto.curve(np.array([[-1.0, -9.0]])).tolist() == [[0, 0]]


def test_methods_at_matched_learning_by_hand() -> None:
    def settings(slope: float, rates: tuple[float, ...]) -> list[pareto.Setting]:
        runs = [point("m", r, s, r, slope * r) for r in rates for s in (0, 1)]
        return pareto.settings(runs, "FM")

    # Kept: -0.5 a point learned against -1; both reach 10: mean over [5, 10] of 0.5 x.
    found = pareto.matched(settings(-0.5, (4, 10, 20)), settings(-1, (3, 5, 10)))
    assert found is not None
    assert found.value == pytest.approx(3.75) and found.level == 10 and found.runs == 12
    assert found.interval.low == pytest.approx(3.75)  # its runs do not differ from each other
    assert pareto.matched(settings(-1, (4,)), settings(-1, (-4,))) is None
    assert pareto.missing("m", settings(-1, (4, 5))) == "m has 2 of 3 learning rates with two seeds"
    assert pareto.missing("m", settings(-1, (4, 5, 6))) == ""


def test_one_sign_at_every_level_or_no_verdict() -> None:
    def side(method: str, kept: tuple[float, ...]) -> list[Point]:
        rates = zip((6.0, 8.0, 10.0), kept, strict=True)
        return [point(method, r, s, r, k + 0.01 * s) for r, k in rates for s in (0, 1, 2)]

    claim = Claim(
        id="x", claim="c", source="s", supports="low > 0 and least > 0",
        evidence={"kind": "matched", "key": "FM", "first": "a", "second": "b"},
        refutes="high < 0 and most < 0",
    )  # fmt: skip
    suite = open_suite("nano").model_copy(update={"sequence": ("a", "b")})

    def judged(a: tuple[float, ...]) -> Claim:
        used = (*side("a", a), *side("b", (-1, -2, -20)))
        return judge(claim, Points(suite, used, {}))

    # Ahead by 16 at the end alone, and behind by 1 up to there.
    hanging = judged((-2, -3, -4))
    assert hanging.figures["interval"][0] > 0 > hanging.figures["least"]
    assert hanging.verdict == "undecided"
    assert judged((-0.5, -1, -1)).verdict == "supported"
    assert judged((-3, -4, -25)).verdict == "refuted"


def test_an_interval_at_matched_learning_holds_the_truth(monkeypatch: Any) -> None:
    """From two runs a setting; resampling them holds it two times in three."""
    monkeypatch.setattr(pareto, "DRAWS", 200)
    rng, means = np.random.default_rng(0), np.array([[4.0, -1], [8.0, -3], [10.0, -6]])

    def side(apart: float) -> list[pareto.Setting]:
        runs = rng.standard_normal((3, 2, 2)) * 0.5 + (means + np.array([0, apart]))[:, None]
        return [pareto.Setting(float(i), run) for i, run in enumerate(runs)]

    held = 0
    for _ in range(60):
        found = pareto.matched(side(1), side(0))
        assert found is not None
        held += found.interval.low <= 1 <= found.interval.high
    assert held >= 54


def test_a_setting_of_one_run_is_on_no_curve() -> None:
    often = [point("m", r, s, r, -r) for r in (4, 6, 8) for s in (0, 1)]
    once = [*often, point("m", 20, 0, 20, -1)]
    other = pareto.settings([p._replace(numbers={"LearnGain": p.rate, "FM": -2 * p.rate}) for p in often], "FM")  # fmt: skip
    both = [pareto.matched(pareto.settings(runs, "FM"), other) for runs in (often, once)]
    assert both[0] == both[1] and both[0] is not None and both[0].runs == 12


def test_a_stage_that_runs_share_counts_once() -> None:
    rng = np.random.default_rng(2)
    runs = [point("m", 1.0, seed, 1, -1, stages(*rng.random((2, 7)).tolist())) for seed in range(7)]
    again = runs[0]._replace(name="late", stages=runs[0].stages[:3])
    found = [laws.fit(all_, "kl_new", "general") for all_ in (runs, [*runs, again])]
    assert found[0] is not None and found[1] is not None
    assert found[0].interval == found[1].interval and found[1].points.shape == (49, 2)


def stages(xs: list[float], ys: list[float], **more: Any) -> tuple[Stage, ...]:
    empty = Stage(1, "", None, None, None, None, None, None, None, None)
    return tuple(
        empty._replace(
            stage=t,
            weights=f"{xs} {ys} {t}",
            kl_new=x,
            general=y,
            **{k: v[t - 1] for k, v in more.items()},
        )
        for t, (x, y) in enumerate(zip(xs, ys, strict=True), 1)
    )


def test_a_law_that_holds_has_r_squared_1_and_noise_has_none() -> None:
    rng = np.random.default_rng(1)
    runs = []
    for seed in range(8):
        xs = rng.random(7)
        runs.append(point("m", 1.0, seed, 1, -1, stages(
            xs.tolist(), (1 - 2 * xs - 3 * xs**2).tolist(), varied=rng.random(7).tolist(),
        )))  # fmt: skip
    law = laws.fit(runs, "kl_new", "general")
    assert law is not None
    assert law.r2 == pytest.approx(1) and law.coefficients == pytest.approx((1, -2, -3))
    assert law.runs == 8 and law.points.shape == (56, 2)
    noise = laws.fit(runs, "varied", "general")
    assert noise is not None and noise.r2 < 0.3
    gap = laws.gap(runs, "kl_new", "varied", "general")
    assert gap is not None and gap[0] == pytest.approx(1 - noise.r2) and gap[1].low > 0.5
    assert laws.fit(runs[:5], "kl_new", "general") is None
    assert laws.fit(runs, "kl_general", "general") is None
    assert quadratic(np.ones(5), np.arange(5.0))[0] == 0
