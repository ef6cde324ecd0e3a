"""Stored runs as points: each run's method, its numbers, and each stage's figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.files import parsed
from cpt_bench.leaderboard.gold import base_row
from cpt_bench.metrics import forgotten_by, rounded
from cpt_bench.stage.recipes import named
from cpt_bench.study.about import About
from cpt_bench.study.numbers import Numbers, divergence, general_of, matrix_of, numbers
from cpt_bench.study.stored import Stored
from cpt_bench.suite import Suite


class Stage(NamedTuple):
    """Figures after a stage; None if not measured.

    Attributes:
        stage: 1 for the first task.
        weights: SHA-256 of the policy: runs in different orders may share their first stages.
        general: mean_b (G[t][b] - G[0][b]), percentage points.
        tasks: mean_{j<t} (R[t][j] - R[j][j]), percentage points.
        kl_new: KL(base || policy) on prompts of the stage's task, nats per token.
        kl_general: The same on general prompts.
        varied: Sum over stages so far of the share of prompts whose rollouts differ in reward.
        variance: Sum over stages so far of the mean reward variance within a prompt's rollouts.
        step: Sum over stages so far of the squared learning rates of their steps.
        push: The same, with each stage multiplied by its share of prompts with reward variance:
            the risk of the steps under the reward-variance law, up to the Fisher norm of a
            gradient, with that share in place of the variance, which was not logged.
    """

    stage: int
    weights: str
    general: float | None
    tasks: float | None
    kl_new: float | None
    kl_general: float | None
    varied: float | None
    variance: float | None
    step: float | None
    push: float | None


class Point(NamedTuple):
    """One run.

    Attributes:
        name: The stored run's name.
        method: ``sft``, ``rft-grpo``, ``replay`` and so on.
        rate: Its learning rate.
        plain: Whether the learning rate is the recipe's.
        seed: The run's seed.
        order: The tasks, in training order.
        joint: Trained on all tasks at once.
        numbers: Key to number; ``LearnGain`` is Learn - BaseAcc.
        stages: The figures of each stage.
    """

    name: str
    method: str
    rate: float
    plain: bool
    seed: int
    order: tuple[str, ...]
    joint: bool
    numbers: Numbers
    stages: tuple[Stage, ...]

    @property
    def rewarded(self) -> bool:
        """Whether it learned from rewards of its own replies, judged by its training figures."""
        return bool(self.stages) and self.stages[-1].varied is not None


class Points(NamedTuple):
    """A study's runs, the excluded runs with the reason, and the study's facts on its methods."""

    suite: Suite
    used: tuple[Point, ...]
    left_out: dict[str, str]
    about: About = About()

    def of(self, method: str, rate: float | None = None, order: Any = None) -> list[Point]:
        """A method's runs, at its recipe's learning rate unless another is named, by seed.

        Args:
            method: Its name.
            rate: A learning rate; None: the recipe's.
            order: A task order; None: the suite's.
        """
        wanted = self.suite.sequence if order is None else order
        found = [
            p
            for p in self.used
            if p.method == method
            and p.order == wanted
            and (p.plain if rate is None else abs(p.rate / rate - 1) < 1e-6)
        ]
        return sorted(found, key=lambda p: p.seed)

    def methods(self) -> list[str]:
        """Methods in the order of the tables."""
        names = {p.method for p in self.used}
        first = [n for n in self.about.first if n in names]
        return [*first, *sorted(names - {*first})]

    def family(self, rewarded: bool) -> list[str]:
        """The methods that learn from rewards, or those that do not, the baseline first."""
        found = {p.method for p in self.used if p.rewarded}
        return [method for method in self.methods() if (method in found) == rewarded]

    def orders(self) -> list[tuple[str, ...]]:
        """The task orders, the suite's own first."""
        found = {p.order for p in self.used}
        rest = sorted(found - {self.suite.sequence})
        return [*([self.suite.sequence] if self.suite.sequence in found else []), *rest]


def other_bases(runs: Sequence[Stored], suite: Suite) -> list[str]:
    """The digests of the base models of runs that are not the suite's own, sorted."""
    own = base_row(suite)
    found = {run.facts["base"]["weights"] for run in runs}
    return sorted(found - {own.weights}) if own is not None else []


def points(
    runs: Sequence[Stored], suite: Suite, about: About | None = None, base: str | None = None
) -> Points:
    """The points of all stored runs from one base model.

    Args:
        runs: The runs.
        suite: The suite of the runs.
        about: The study's facts on its methods.
        base: The digest of another base model than the suite's own. A study has its runs from
            several bases in one folder; those from another base than is asked for are passed over.

    Raises:
        CptBenchError: Two are the same method, learning rate, order and seed; or one is of another
            suite version.
    """
    about = about or About()
    used: dict[tuple[Any, ...], Point] = {}
    left_out, usual, own = {}, usual_settings(runs), base_row(suite)
    wanted = base or (own.weights if own is not None else None)
    fingerprint = suite.fingerprint()
    for run in runs:
        if run.facts["suite"]["fingerprint"] != fingerprint:
            raise CptBenchError("is of another suite version", where=run.name)
        if wanted is not None and run.facts["base"]["weights"] != wanted:
            continue
        if why := other_settings(run, suite, usual, about):
            left_out[run.name] = why
            continue
        point = point_of(run, suite, about)
        key = point.method, point.rate, point.order, point.seed
        if key in used:
            raise CptBenchError(
                f"is the same method, learning rate, order and seed as {used[key].name}",
                where=run.name,
            )
        used[key] = point
    return Points(suite, tuple(used.values()), left_out, about)


@lru_cache(maxsize=256)
def _recipe(suite: str, trainer: str) -> dict[str, Any]:
    try:
        return named(f"{suite}/{trainer}")
    except CptBenchError:
        return {}


def usual_settings(runs: Sequence[Stored]) -> dict[str, dict[str, Any]]:
    """Trainer to the most frequent value of each setting among its runs.

    Recipes contain few of them; a trainer's defaults are known only from its code, which needs
    torch, and a study is built without torch.
    """
    found: dict[str, dict[str, Counter[str]]] = {}
    for run in runs:
        table = found.setdefault(run.facts["trainer"], {})
        for key, value in run.facts["config"].items():
            table.setdefault(key, Counter())[json.dumps(value)] += 1
    return {
        trainer: {key: parsed(counts.most_common(1)[0][0]) for key, counts in table.items()}
        for trainer, table in found.items()
    }


def other_settings(
    run: Stored, suite: Suite, usual: dict[str, dict[str, Any]], about: About
) -> str:
    """How a run's settings differ from those of its trainer's other runs, except in variants."""
    config, trainer = run.facts["config"], run.facts["trainer"]
    recipe = _recipe(suite.name, trainer)
    if not recipe:
        return f"trainer {trainer} has no recipe for {suite.name}"
    known = {key: value for key, value in usual[trainer].items() if key in config}
    odd = [
        f"{key} {config.get(key)!r}, not {value!r}"
        for key, value in {**known, **recipe}.items()
        if key not in (*about.variants, "learning_rate") and config.get(key) != value
    ]
    return "; ".join(odd)


def method_of(run: Stored, about: About) -> str:
    """The trainer's name, with the settings that turn it into another method."""
    config, trainer = run.facts["config"], str(run.facts["trainer"])
    plain = about.variants.items()
    tail = [str(config[key]) for key, value in plain if config.get(key, value) != value]
    name = "-".join([trainer, *tail])
    return about.names.get(name, name)


def point_of(run: Stored, suite: Suite, about: About) -> Point:
    """One run's point."""
    found = numbers(run, suite)
    learn, base = found["Learn"], found["BaseAcc"]
    found["LearnGain"] = None if learn is None or base is None else rounded(learn - base)
    rate = float(run.facts["config"]["learning_rate"])
    own = float(_recipe(suite.name, run.facts["trainer"])["learning_rate"])
    return Point(
        name=run.name,
        method=method_of(run, about),
        rate=rate,
        plain=abs(rate / own - 1) < 1e-6,
        seed=int(run.facts["seed"]),
        order=run.order,
        joint=run.joint,
        numbers=found,
        stages=() if run.joint else tuple(_stages(run, suite)),
    )


def _stages(run: Stored, suite: Suite) -> list[Stage]:
    r, general = matrix_of(run).accuracy, general_of(run, suite)
    out, varied, variance, step, push = [], 0.0, 0.0, 0.0, 0.0
    known = {"varied": True, "variance": True, "step": True}
    for t, task in enumerate(run.order, 1):
        training = run.training.get(t, {})
        figures = training.get("figures", {})
        known["step"] &= "rate_squared" in training
        step += training.get("rate_squared", 0.0)
        if "frac_reward_zero_std" in figures:
            share = 1 - figures["frac_reward_zero_std"]
            varied += share
            push += share * training.get("rate_squared", 0.0)
        else:
            known["varied"] = False
        if "reward_variance" in figures:
            variance += figures["reward_variance"]
        else:
            known["variance"] = False
        forgotten = forgotten_by(t, r, general)
        out.append(
            Stage(
                stage=t,
                weights=run.facts["weights"][f"stage-{t}"],
                general=forgotten.general,
                tasks=forgotten.tasks,
                kl_new=divergence(run, t, (task,)),
                kl_general=divergence(run, t, suite.general),
                varied=rounded(varied) if known["varied"] else None,
                variance=rounded(variance) if known["variance"] else None,
                step=rounded(step) if known["step"] else None,
                push=rounded(push) if known["varied"] and known["step"] else None,
            )
        )
    return out
