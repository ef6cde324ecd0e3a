"""What a run will need, checked before it starts: packages, GPUs, a launcher, graders.

What is missing would otherwise be found when it is first used, which may be hours later.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cpt_bench import general
from cpt_bench.errors import CptBenchError
from cpt_bench.grading.matchers import package_of
from cpt_bench.models.checkpoint import load_processor
from cpt_bench.models.families.pictures import limit_pixels
from cpt_bench.stage import launch as launching
from cpt_bench.stage.command import PREFIX
from cpt_bench.stage.method import Method
from cpt_bench.suite import Suite
from cpt_bench.worker import devices
from cpt_bench.worker.process import Worker

EXTRAS = {
    "deepspeed": "'cptbench[deepspeed]'",
    "vllm": "'cptbench[vllm]'",
    "peft": "'cptbench[train]'",
    "flash_attn": "flash-attn --no-build-isolation",
    "math_verify": "'cptbench[grade]'",
    "mathruler": "'cptbench[grade]'",
}
"""A module to what ``pip install`` is given for it."""


def require_tools(trainer: str, launch: str | None, harnesses: Sequence[str]) -> None:
    """Require other harnesses that are asked for, and a launcher that is understood.

    Raises:
        CptBenchError: One is not installed, or the launcher is none that is supported.
    """
    for spec in harnesses:
        general.installed(general.parse(spec))
    if launch is not None:
        launching.command(launch)
        if trainer.startswith(PREFIX):
            raise CptBenchError(
                "a cmd: trainer starts its own processes", where=f"--launch {launch!r}"
            )


def require_graders(suite: Suite) -> None:
    """Require what the suite's graders import.

    Raises:
        CptBenchError: It is not installed.
    """
    for name in (*suite.sequence, *suite.general):
        card = suite.card(name)
        package = package_of(card.grader, card.answer_kinds)
        if package is not None:
            _require(package, f"grading {name}")


def require_method(
    method: Method, launch: str | None, gpus: Sequence[str], smaller: Sequence[str] = ()
) -> None:
    """Require what a trainer needs under its settings.

    Args:
        method: The trainer and its settings.
        launch: ``--launch``.
        gpus: The GPUs that are visible.
        smaller: Recipes of the trainer for fewer GPUs.

    Raises:
        CptBenchError: A package is not installed, there are too few GPUs, or one process trains
            where several must.
    """
    needs, where = method.needs, f"trainer {method.name}"
    for package in needs.packages:
        _require(package, where)
    wanted = devices.processes(launch) or 1
    if needs.gpu and not gpus and shutil.which("rocm-smi") is None:
        raise CptBenchError(
            "its settings train on a GPU, and none is visible here",
            where=where,
            todo="Run it where one is, or set device=cpu with --set, or another --recipe",
        )
    if needs.gpu and gpus and wanted > len(gpus):
        raise CptBenchError(
            f"{wanted} processes train, each on a GPU of its own, and {len(gpus)} are visible",
            where=f"--launch {launch!r}",
            todo="Start as many as there are GPUs",
        )
    if needs.launch and launch is None:
        raise CptBenchError(
            "its settings split the model over several processes, and one trains",
            where=where,
            todo='Give --launch "torchrun --nproc_per_node N"'
            + (
                f", or --recipe {' or '.join(smaller)} (cptbench plan --gpus 1 chooses)"
                if smaller
                else ", or set sharding=none"
            ),
        )


def require_limits(method: Method, base: Path) -> None:
    """Require a base model whose pictures a trainer can limit as its settings ask.

    Raises:
        CptBenchError: Its family measures pictures differently, or its processor cannot be opened.
    """
    if method.needs.pixels == (None, None):
        return
    with tempfile.TemporaryDirectory() as folder:
        what = "looking at the base model"
        Worker(_limited, (base, *method.needs.pixels), Path(folder) / "log", what).result()


def _limited(
    say: Callable[[dict[str, Any]], None], base: Path, least: int | None, most: int | None
) -> None:
    limit_pixels(load_processor(base), least, most)


def _require(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise CptBenchError(
            f"needs {package}, which is not installed",
            where=what,
            todo=f"Install it with: pip install {EXTRAS.get(package, package)}",
        )
