"""The layout of a run folder, in one place.

::

    run.json                          what was asked for, and on what it ran
    ledger/<step>.json                what was done, under which key
    stages/2-text/checkpoint/         weights, processor
    stages/2-text/state/              what the trainer keeps from stage to stage
    stages/2-text/memory/             the samples it keeps, within its declared budget
    stages/2-text/train.jsonl         training figures, one row a step
    stages/2-text/predictions/<name>.jsonl
    stages/2-text/kl.jsonl            KL(base || policy) along base's replies, one row a prompt
    stages/7-counting/forced/<prefix>/<name>.jsonl   what was lost, asked with a forced beginning
    stages/2-text/general/<evaluator>_<task>.json{,l}   measured by other harnesses
    stages/2-text/logs/               what the processes printed
    stages/2-text/work/               stage.json and what is being written, while a stage trains
    failures.jsonl                    stages that failed: when, which, how
    matrix.json  metrics.json         recomputed from the predictions by ``cptbench score``

What a stage learns is shared by the runs in one folder, in ``.shared/data/<task>-<hash>/`` (with
``--no-share`` in ``data/``): ``train.jsonl``, one line a sample, and pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


def stage_name(order: Sequence[str], stage: int) -> str:
    """What a stage's folder is called: ``0-base``, ``1-science`` and so on."""
    return f"{stage}-{'base' if stage == 0 else order[stage - 1]}"


def is_joint(run: Mapping[str, Any]) -> bool:
    """Whether the run of a ``run.json`` trained on all tasks at once: it has no rows in between."""
    privileges = run.get("privileges")
    return isinstance(privileges, Mapping) and bool(privileges.get("joint"))


class RunFolder(NamedTuple):
    """Paths of one run.

    Attributes:
        root: The run folder.
        tasks: The sequence, in training order.
    """

    root: Path
    tasks: tuple[str, ...]

    def stage(self, index: int) -> Path:
        """The folder of a stage: ``stages/0-base``, ``stages/1-science``, and so on."""
        return self.root / "stages" / stage_name(self.tasks, index)

    def checkpoint(self, index: int) -> Path:
        return self.stage(index) / "checkpoint"

    def state(self, index: int) -> Path:
        return self.stage(index) / "state"

    def memory(self, index: int) -> Path:
        return self.stage(index) / "memory"

    def work(self, index: int) -> Path:
        return self.stage(index) / "work"

    def predictions(self, index: int, name: str) -> Path:
        return self.stage(index) / "predictions" / f"{name}.jsonl"

    def forced(self, index: int, prefix: str, name: str) -> Path:
        return self.stage(index) / "forced" / prefix / f"{name}.jsonl"

    def divergence(self, index: int) -> Path:
        return self.stage(index) / "kl.jsonl"

    def general(self, index: int) -> Path:
        """The folder of what other harnesses measured; see :mod:`cpt_bench.general`."""
        return self.stage(index) / "general"

    def train_log(self, index: int) -> Path:
        return self.stage(index) / "train.jsonl"

    def log(self, index: int, what: str) -> Path:
        return self.stage(index) / "logs" / f"{what}.log"

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    @property
    def failures(self) -> Path:
        return self.root / "failures.jsonl"

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def matrix_json(self) -> Path:
        return self.root / "matrix.json"

    @property
    def metrics_json(self) -> Path:
        return self.root / "metrics.json"
