"""Settings as people type them: ``key=value``, the value written as YAML."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import yaml

from cpt_bench.errors import CptBenchError


def value_of(text: str) -> Any:
    """``text`` as YAML, in which ``1e-4`` is a number (YAML 1.1 wants ``1.0e-4``).

    Raises:
        CptBenchError: It is not YAML, or no finite number.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise CptBenchError(f"{text!r} is not a value") from None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise CptBenchError(f"{text!r} is not a finite number")
    return value
