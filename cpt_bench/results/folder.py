"""The layout of a run folder, in one place.

::

    run.json                          the settings, and the versions and hardware
    ledger/<step>.json                the record of a step, with its key
    stages/2-text/checkpoint/         weights, processor
    stages/2-text/state/              the trainer's own files, passed from stage to stage
    stages/2-text/memory/             the samples it stores, within its declared budget
    stages/2-text/train.jsonl         training figures, one row a step
    stages/2-text/predictions/<name>.jsonl
    stages/2-text/kl.jsonl            KL(base || policy) along base's replies, one row a prompt
    stages/7-counting/forced/<prefix>/<name>.jsonl   lost samples, asked with a forced beginning
    stages/2-text/general/<evaluator>_<task>.json{,l}   measured by other harnesses
    stages/2-text/logs/               the processes' output
    stages/2-text/work/               stage.json and unfinished output, while a stage trains
    failures.jsonl                    failed stages: time, stage, error
    matrix.json  metrics.json         recomputed from the predictions by ``cptbench score``

The training data is shared by the runs in one folder, in ``.shared/data/<task>-<hash>/`` (with
``--no-share`` in ``data/``): ``train.jsonl``, one line per sample, and pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


def stage_name(order: Sequence[str], stage: int) -> str:
    """The name of a stage's folder: ``0-base``, ``1-science`` and so on."""
    return f"{stage}-{'base' if stage == 0 else order[stage - 1]}"


def is_joint(run: Mapping[str, Any]) -> bool:
    """Whether the run of a ``run.json`` trained on all tasks at once: it has no rows between."""
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
        """The folder of other harnesses' results; see :mod:`cpt_bench.general`."""
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
