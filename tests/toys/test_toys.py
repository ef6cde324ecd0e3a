"""The toy examples: their arithmetic, and the published qualitative results."""

from __future__ import annotations

import numpy as np
import pytest

from cpt_bench.toys import mixture
from cpt_bench.toys.mixture import CASES, TWO_MODES, Point, Policy, at_gain, compare, covered, score


def test_the_score_is_the_slope_of_the_log_density() -> None:
    x = np.array([-4.0, -1.0, 0.3, 2.0])

    def log_density(p: Policy) -> np.ndarray:
        modes = zip(p.shares, p.means, p.widths, strict=True)
        return np.log(sum(s * mixture.density(x, m, w) for s, m, w in modes))

    logit, means, widths = score(TWO_MODES, x)
    h = 1e-6
    for k, slope in enumerate([logit, *means, *widths]):
        flat = np.array([TWO_MODES.logit, *TWO_MODES.means, *TWO_MODES.widths])
        sides = []
        for sign in (1, -1):
            v = flat.copy()
            v[k] += sign * h
            sides.append(log_density(Policy(v[0], (v[1], v[2]), (v[3], v[4]))))
        assert np.allclose((sides[0] - sides[1]) / (2 * h), slope, atol=1e-5)


def test_what_is_covered() -> None:
    exact = Policy(float(np.log(3)), (-3.0, 3.5), (1.0, 0.7))
    assert covered(exact) == pytest.approx((1.0, 1.0), abs=1e-6)
    half = Policy(0.0, (-3.0, 3.5), (1.0, 0.7))  # half of q on the old mode, which wants 3/4
    assert covered(half) == pytest.approx((2 / 3, 1.0), abs=1e-3)
    assert at_gain([Point(0.9, 0.1), Point(0.8, 0.6), Point(0.1, 0.9)], 0.5).old == 0.8
    with pytest.raises(ValueError, match=r"0\.10 at most"):
        at_gain([Point(1.0, 0.1)], 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_with_two_modes_rl_keeps_the_old_one(seed: int) -> None:
    """Published: REINFORCE moves the new mode alone, the forward KL draws mass from the old."""
    start, sft, rl = compare("two modes", seed)
    assert start.old == pytest.approx(0.80, abs=0.01)
    assert sft.new == pytest.approx(CASES["two modes"][1], abs=0.02)
    assert rl.old > 0.85 * start.old
    assert sft.old < 0.65 * start.old


@pytest.mark.parametrize("seed", range(3))
def test_with_one_mode_the_forward_kl_forgets_less(seed: int) -> None:
    """Published: it covers both before it moves; the reverse KL's one narrow mode leaves."""
    _, sft, rl = compare("one mode", seed)
    assert sft.old > 0.15 and rl.old < 0.05


# ------------------------------------------------------------------------------ digits


def test_r_squared_of_a_quadratic() -> None:
    from cpt_bench.toys.digits import r_squared

    x = np.linspace(0, 1, 20)
    assert r_squared(x, 3 * x**2 - x + 1) == pytest.approx(1)
    assert r_squared(x, np.tile([1.0, -1.0], 10)) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_forgetting_follows_the_kl_on_the_new_task(seed: int) -> None:
    """Published: R^2 0.96 (RL's Razor), 0.94 (replication), over all methods together; and at
    equal, moderate parity accuracy sft-1 < sft-2 < rl, the oracle best."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from cpt_bench.toys import digits

    torch.set_num_threads(1)
    start, points = digits.sweep(seed)
    assert 0.85 < start.parity < digits.MATCHED and start.old > 0.9
    assert len(points) == 4 * 4 * 10
    forgotten = [start.old - p.old for p in points]
    assert digits.r_squared([p.kl for p in points], forgotten) > 0.85
    # How long was trained explains far less.
    steps = [i % 10 for i in range(len(points))]
    assert digits.r_squared(steps, forgotten) < 0.5
    old = {m: digits.best_old(points, m, digits.MATCHED) for m in digits.METHODS}
    assert old["sft-1"] < old["sft-2"] < old["rl"] - 0.2
    assert old["oracle"] > old["rl"] - 0.02


def test_the_oracle_is_the_nearest_right_answer() -> None:
    """Its target is pi_0 on the right digits, renormalised: the least KL among right policies."""
    torch = pytest.importorskip("torch")
    from cpt_bench.toys.digits import loss_of

    before = torch.log_softmax(torch.randn(3, 10), dim=-1)
    digit = torch.tensor([2, 7, 4])
    right = (torch.arange(10) - digit[:, None]) % 2 == 0
    nearest = (before.exp() * right) / (before.exp() * right).sum(dim=1, keepdim=True)
    logits = (nearest + 1e-12).log()
    entropy = -(nearest * (nearest + 1e-12).log()).sum(dim=1).mean()
    assert float(loss_of("oracle", logits, before, digit)) == pytest.approx(
        float(entropy), abs=1e-4
    )
    worse = torch.log_softmax(torch.randn(3, 10), dim=-1)
    assert float(loss_of("oracle", worse, before, digit)) > float(entropy)
    one_sided = torch.full((3, 10), -20.0)
    one_sided[torch.arange(3), digit % 2] = 20.0
    assert float(loss_of("sft-1", one_sided, before, digit)) == pytest.approx(0, abs=1e-4)
