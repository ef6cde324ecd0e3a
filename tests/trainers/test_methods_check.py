"""The trainers that ship pass ``cptbench trainer check``: on the tiny suite, in short stages.

A check trains six stages, each in a process of its own: about five seconds here. One method of each
machinery is checked in every run of the tests, all of them with ``CPTBENCH_CHECK_ALL=1``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.plugins import builtin
from cpt_bench.run.check import check
from cpt_bench.run.plan import Plan
from cpt_bench.stage.method import Method
from cpt_bench.stage.trainers import trainer_of
from cpt_bench.suite import Suite, load_suite
from cpt_bench.trainers.sft import SFT
from tests.support.places import TINY
from tests.support.stages import make_stage

MACHINERIES = (
    "joint", "rft-replay", "ewc", "rft-lwf", "olora", "flow", "iterative-sft", "rationale-sft",
    "rft-kl", "rif-rft", "rapo", "pretrain", "rft-cpr", "rft-cpo",
)  # fmt: skip
NAMES = tuple(builtin("trainers")) if os.environ.get("CPTBENCH_CHECK_ALL") else MACHINERIES
SHORT: dict[str, Any] = {
    "learning_rate": 1e-3, "max_steps": 2, "batch_size": 4, "prompts_per_step": 1, "rollouts": 8,
    "ewc_samples": 2, "self_check": 1, "filter_rollouts": 2, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: the train splits are prepared once, the fork server is warm."""
    return tmp_path_factory.mktemp("checks")


@pytest.fixture(scope="module")
def taught(tiny_model: Path, folder: Path) -> Path:
    """The tiny model after a few seconds of SFT: it answers in the form, and sometimes rightly.

    Without it no rollout earns anything, and reinforcement has nothing to learn from.
    """
    import torch

    torch.set_num_threads(1)
    samples = [
        s
        for task in suite().sequence[:2]
        for s in make_stage(task, tiny_model, folder / "teach" / task).samples
    ]
    stage = make_stage("science", tiny_model, folder / "teach")
    config = SFT.Config(learning_rate=3e-3, max_steps=40, batch_size=16, device="cpu")
    SFT(config).train(replace(stage, samples=samples))
    return stage.output


def suite() -> Suite:
    return load_suite(TINY)


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_contract(name: str, taught: Path, folder: Path) -> None:
    found = trainer_of(name)
    known = found.value.Config.model_fields
    config = found.value.Config(**{k: v for k, v in SHORT.items() if k in known})
    method = Method(
        found.name, found.origin, config.model_dump(mode="json"), found.value.declare(config)
    )
    plan = Plan(
        suite_spec=str(TINY), suite=suite(), method=method, seed=0, limit=None,
        threads=1, overlap=False, keep="all", base=taught,
    )  # fmt: skip
    findings = check(plan, folder / name, lambda event: None)
    assert [f for f in findings if f.ok is False] == []
    # Joint training has one stage: there is no second one to be killed in.
    assert len(findings) == (7 if plan.privileges.joint else 8)
