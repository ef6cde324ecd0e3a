"""cptbench: what does a post-training method learn, and what does it forget?

>>> import cpt_bench
>>> result = cpt_bench.run("nano", "sft", seed=0)  # doctest: +SKIP
>>> result.matrix, result.metrics["AvgAcc"]["value"]  # doctest: +SKIP

Importing the package imports nothing else: each name below is looked up when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpt_bench.api import check_trainer, compare, evaluate, load, run
    from cpt_bench.errors import CptBenchError
    from cpt_bench.report.result import Comparison, Result
    from cpt_bench.suite import open_suite
    from cpt_bench.trainer import Privileges, Stage, Trainer, TrainerConfig

__all__ = [
    "Comparison",
    "CptBenchError",
    "Privileges",
    "Result",
    "Stage",
    "Trainer",
    "TrainerConfig",
    "check_trainer",
    "compare",
    "evaluate",
    "load",
    "open_suite",
    "run",
]

_HOMES = {
    **dict.fromkeys(("check_trainer", "compare", "evaluate", "load", "run"), "cpt_bench.api"),
    **dict.fromkeys(("Comparison", "Result"), "cpt_bench.report.result"),
    **dict.fromkeys(("Privileges", "Stage", "Trainer", "TrainerConfig"), "cpt_bench.trainer"),
    "CptBenchError": "cpt_bench.errors",
    "open_suite": "cpt_bench.suite",
}
"""Name to the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package: its function ``run`` keeps the name that the sub-package ``run`` has too."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Python sets a sub-package as an attribute when it is imported. Inside, modules are always
        # imported by name (from cpt_bench.run.plan import Plan), which needs no attribute.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
