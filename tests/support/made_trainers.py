"""Trainers written for one test, and a run of the tiny suite that trains with them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpt_bench.run.context import Policy
from cpt_bench.run.plan import Plan
from cpt_bench.run.sequencer import opened, train_stages
from cpt_bench.stage.method import Asked, describe
from cpt_bench.suite import load_suite
from tests.support.places import TINY

HEAD = """
import os, shutil, sys, time
from pathlib import Path
from cpt_bench.trainer import Privileges, Trainer

def copy(stage):
    shutil.copytree(stage.policy, stage.output, dirs_exist_ok=True)
"""

ENTER = """
class It(Trainer):
    privileges = Privileges({privileges})
    def train(self, stage):
        run = stage.output.parents[3]
        {body}
"""


def make_plan(tmp_path: Path, model: Path, spec: str, **changes: Any) -> Plan:
    return Plan(
        suite_spec=str(TINY), suite=load_suite(TINY), method=describe(Asked(spec, "tiny")), seed=0,
        limit=4, threads=1, overlap=False, keep="all", base=model,
    )._replace(**changes)  # fmt: skip


def train(
    plan: Plan, folder: Path, stages: tuple[int, ...] = (1,), events: list[Any] | None = None
) -> dict[int, Policy]:
    tell = (events if events is not None else []).append
    with opened(plan, folder, tell=tell) as context:
        return train_stages(context, stages)


def trainer_file(folder: Path, body: str, privileges: str = "") -> str:
    """Write a trainer whose ``train`` has a given body; returns its spec."""
    file = folder / "mine.py"
    file.write_text(HEAD + ENTER.format(body=body, privileges=privileges))
    return f"{file}:It"
