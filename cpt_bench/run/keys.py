"""The inputs of each kind of step: all that can change its result; pure.

Every key holds the digest of the weights it is about: harnesses that key their caches without it
return the last stage's answers for this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpt_bench.plugins import locate
from cpt_bench.run.code import code_digest
from cpt_bench.run.context import Policy
from cpt_bench.run.plan import Plan, stage_seed

TRAINING = ("origin", "config", "privileges", "budget", "limit", "threads", "versions")
"""Of a run's identity, what can change a stage's training."""

MEASURING = ("limit", "threads", "versions")
"""Of a run's identity, what can change a measurement."""

Inputs = dict[str, Any]
Identity = Mapping[str, Any]


def training(plan: Plan, identity: Identity, t: int, policies: Mapping[int, Policy]) -> Inputs:
    """Of training stage ``t``.

    Args:
        plan: The run's plan.
        identity: Its identity.
        t: The stage.
        policies: Stage to checkpoint, for those before ``t``.
    """
    suite, parent = plan.suite, policies[max(policies)]
    earlier = [policy.weights for policy in policies.values()]
    return {
        "tasks": [suite.card(task).model_dump(mode="json") for task in plan.tasks_of(t)],
        "protocol": suite.protocol.model_dump(mode="json"),
        "index": t,
        "parent": parent.weights,
        **_frame(parent, "parent_frame"),
        "state": None if parent.carried is None else list(parent.carried),
        "earlier": earlier if plan.privileges.earlier_checkpoints else [],
        **{key: identity[key] for key in TRAINING},
        "seed": stage_seed(plan.seed, t),
        **({"launch": plan.launch} if plan.launch else {}),
        "code": code_digest(
            [
                "cpt_bench.stage.training",
                *_trainer(plan),
                # Replayed samples of earlier tasks are rewarded too.
                *(target for name in suite.sequence[:t] for target in _grader(plan, name)),
            ]
        ),
    }


def evaluation(plan: Plan, identity: Identity, policy: Policy, name: str) -> Inputs:
    """Of evaluating a checkpoint on one benchmark."""
    code = ["cpt_bench.run.jobs.evaluate", _engine(plan), *_grader(plan, name)]
    return {**_asked(plan, identity, policy, [name]), "code": code_digest(code)}


def divergence(
    plan: Plan, identity: Identity, policy: Policy, base: Policy, prompts: Mapping[str, int]
) -> Inputs:
    """Of KL(base || policy) on so many ``prompts`` of each benchmark."""
    return {
        **_asked(plan, identity, policy, [*prompts]),
        "base": base.weights,
        **_frame(base, "base_frame"),
        "prompts": dict(prompts),
        "code": code_digest(["cpt_bench.run.jobs.divergence"]),
    }


def diagnosis(
    plan: Plan,
    identity: Identity,
    policy: Policy,
    name: str,
    forced: Mapping[str, str],
    ids: Sequence[str],
) -> Inputs:
    """Of asking samples ``ids`` of one benchmark again, with each ``forced`` beginning."""
    code = ["cpt_bench.run.jobs.diagnose", *_grader(plan, name)]
    asked = _asked(plan, identity, policy, [name])
    return {**asked, "forced": dict(forced), "ids": list(ids), "code": code_digest(code)}


def general(identity: Identity, policy: Policy, benchmark: str, harness: str) -> Inputs:
    """Of measuring a checkpoint on a benchmark of another harness, in its installed version."""
    return {
        "weights": policy.weights,
        **_frame(policy, "frame"),
        "benchmark": benchmark,
        "harness": harness,
        **{key: identity[key] for key in MEASURING},
        "code": code_digest(["cpt_bench.run.jobs.general"]),
    }


def _asked(plan: Plan, identity: Identity, policy: Policy, names: Sequence[str]) -> Inputs:
    """What every question put to a checkpoint depends on."""
    cards = {name: plan.suite.card(name).model_dump(mode="json") for name in names}
    return {
        "weights": policy.weights,
        **_frame(policy, "frame"),
        "card": cards[names[0]] if len(names) == 1 else cards,
        "protocol": plan.suite.protocol.model_dump(mode="json"),
        **plan.answered_by(),
        **{key: identity[key] for key in MEASURING},
    }


def _frame(policy: Policy, key: str) -> dict[str, str]:
    return {key: policy.frame} if policy.frame else {}


def _engine(plan: Plan) -> str:
    return locate("engines", "endpoint" if plan.endpoint else plan.engine.name).target


def _trainer(plan: Plan) -> list[str]:
    """The trainer's module.

    A command's program, and a file next to a plug-in folder's index, are covered by its origin.
    """
    module = plan.method.origin.get("module", "")
    place = module.rpartition(":")[0]
    if not module or (place.endswith(".py") and not Path(place).is_file()):
        return []
    return [module]


def _grader(plan: Plan, name: str) -> list[str]:
    """The module of a grader that is a plug-in; those that ship are imported by the job."""
    grader = plan.suite.card(name).located().grader
    return [_source("graders", grader)] if ":" in grader or "/" in grader else []


def _source(kind: str, spec: str) -> str:
    """Where the code of a plug-in is; a file next to an index is named from the index's folder."""
    found = locate(kind, spec)
    if found.offer and found.folder and ".py:" in found.target:
        return str(found.folder / found.target)
    return found.target
