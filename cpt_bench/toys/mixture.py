"""Forward KL against REINFORCE on a mixture of two Gaussians: who forgets the old mode?

After "Retaining by Doing" (arXiv 2510.18874, section on a toy model). A policy q has a mode for
what it knows (at -3.5) and one that must move to a new task's target p_new (at 3.5):

* SFT minimises the forward KL, -E_{x ~ p_new} ln q(x): samples of the target.
* RL maximises E_{x ~ q_new} r(x), r(x) = ln p_new(x) - ln q_new(x), by REINFORCE with the batch's
  mean as baseline: samples of the policy's own new mode q_new (its replies to the new prompts).
  Its optimum is the reverse KL's.

Published: with two modes RL moves the new one and leaves the old one alone, while the forward KL
draws mass away from it; with a *single* mode the forward KL, which widens before it moves, forgets
less. Compared at equal gain on the new task.

Start, target, iterations and samples are the paper's. Two things differ from its code: the mixture
weight is a logit, and all parameters have one learning rate (there the old mode's is 200 times
smaller, and rewards have no baseline). The paper's third case, modes so far apart that RL forgets
as well, hangs on that and is not made here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

OLD, NEW = (0.75, -3.0, 1.0), (0.25, 3.5, 0.7)
"""The two targets: share, mean, standard deviation."""

GRID = np.linspace(-12.0, 12.0, 2401)


class Policy(NamedTuple):
    """Two Gaussians; with ``logit`` infinite, the first alone.

    Attributes:
        logit: Log-odds of the old mode's share.
        means: Of the old and the new mode.
        widths: Their standard deviations.
    """

    logit: float
    means: tuple[float, float]
    widths: tuple[float, float]

    @property
    def shares(self) -> tuple[float, float]:
        old = 1 / (1 + np.exp(-self.logit))
        return float(old), float(1 - old)


TWO_MODES = Policy(float(np.log(3.0)), (-3.5, 0.5), (1.0, 0.7))
ONE_MODE = Policy(np.inf, (-3.5, 0.0), (1.0, 1.0))


class Point(NamedTuple):
    """How much of each target a policy covers, in [0, 1]: the shared area over the target's."""

    old: float
    new: float


def density(x: Array, mean: float, width: float) -> Array:
    """The Gaussian's density at ``x``, shape (n,)."""
    return np.asarray(np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * np.sqrt(2 * np.pi)))


def covered(policy: Policy) -> Point:
    """The overlap of the policy's modes with the old and the new target."""
    single = np.isinf(policy.logit)
    parts = []
    for i, (share, mean, width) in enumerate((OLD, NEW)):
        mode = 0 if single else i
        weight = share if single else policy.shares[mode]
        ours = weight * density(GRID, policy.means[mode], policy.widths[mode])
        target = share * density(GRID, mean, width)
        parts.append(float(np.minimum(ours, target).sum() / target.sum()))
    return Point(*parts)


def score(policy: Policy, x: Array) -> tuple[Array, Array, Array]:
    """D ln q(x) / d (logit, means, widths): shapes (n,), (2, n), (2, n)."""
    weighted = np.array(
        [
            share * density(x, mean, width)
            for share, mean, width in zip(policy.shares, policy.means, policy.widths, strict=True)
        ]
    )
    r = weighted / (weighted.sum(axis=0) + 1e-300)  # each mode's responsibility for x
    means, widths = np.array(policy.means)[:, None], np.array(policy.widths)[:, None]
    away = x - means
    return (
        r[0] - policy.shares[0],
        r * away / widths**2,
        r * (away**2 / widths**3 - 1 / widths),
    )


def step(policy: Policy, x: Array, weight: Array | float, rate: float) -> Policy:
    """Ascend the mean of ``weight * ln q(x)`` by one step."""
    logit, means, widths = (np.mean(weight * s, axis=-1) for s in score(policy, x))
    single = np.isinf(policy.logit)
    moved = np.array(policy.means) + rate * means
    wide = np.maximum(np.array(policy.widths) + rate * widths, 1e-3)
    return Policy(
        policy.logit if single else float(policy.logit + rate * logit),
        (float(moved[0]), float(moved[1])),
        (float(wide[0]), float(wide[1])),
    )


def forward_kl(
    policy: Policy, rate: float, iterations: int = 200, samples: int = 1000, seed: int = 0
) -> list[Point]:
    """SFT on samples of the new target; what is covered after each step, the start first."""
    rng = np.random.default_rng(seed)
    path = [covered(policy)]
    for _ in range(iterations):
        policy = step(policy, rng.normal(NEW[1], NEW[2], samples), 1.0, rate)
        path.append(covered(policy))
    return path


def reinforce(
    policy: Policy, rate: float, iterations: int = 200, samples: int = 1000, seed: int = 0
) -> list[Point]:
    """RL on the policy's own samples of its new mode; what is covered after each step."""
    rng = np.random.default_rng(seed)
    path = [covered(policy)]
    mode = 0 if np.isinf(policy.logit) else 1
    for _ in range(iterations):
        mean, width = policy.means[mode], policy.widths[mode]
        x = rng.normal(mean, width, samples)
        reward = _log(x, NEW[1], NEW[2]) - _log(x, mean, width)
        policy = step(policy, x, reward - reward.mean(), rate)
        path.append(covered(policy))
    return path


def _log(x: Array, mean: float, width: float) -> Array:
    return np.asarray(-0.5 * ((x - mean) / width) ** 2 - np.log(width))


def at_gain(path: list[Point], gain: float) -> Point:
    """The first point of a path that covers ``gain`` of the new target.

    Raises:
        ValueError: It never does.
    """
    for point in path:
        if point.new >= gain:
            return point
    raise ValueError(f"the new target is covered to {max(p.new for p in path):.2f} at most")


CASES = {
    "two modes": (TWO_MODES, 0.9, 0.01, 0.01),
    "one mode": (ONE_MODE, 0.3, 0.05, 0.005),
}
"""Start, gain at which to compare, learning rates of the forward KL and of REINFORCE."""


def compare(case: str, seed: int = 0) -> tuple[Point, Point, Point]:
    """The start, and at equal gain the forward KL's and REINFORCE's policy."""
    start, gain, supervised, rewarded = CASES[case]
    return (
        covered(start),
        at_gain(forward_kl(start, supervised, 1000, seed=seed), gain),
        at_gain(reinforce(start, rewarded, 1000, seed=seed), gain),
    )


def main() -> None:
    for case, (_, gain, _, _) in CASES.items():
        start, sft, rl = compare(case)
        print(f"{case}: old mode covered {start.old:.2f} at the start; when the new one is {gain}: "
              f"forward KL {sft.old:.2f}, REINFORCE {rl.old:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
