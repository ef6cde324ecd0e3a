"""Settings as people type them: ``key=value``, the value written as YAML."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
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


def assigned(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``key=value``.

    Raises:
        CptBenchError: A value cannot be written as text.
    """
    return [f"{key}={plain(value)}" for key, value in settings.items()]


def plain(value: Any) -> str:
    """A setting's value as ``--set`` takes it: ``1e-4``, ``true``, ``[1, 2]``.

    Raises:
        CptBenchError: It cannot be written as text.
    """
    value = value.item() if hasattr(value, "item") else value  # a number of NumPy's or torch's
    if isinstance(value, float):
        digits, _, power = f"{value:.6e}".partition("e")
        short = digits.rstrip("0").rstrip(".")
        short = f"{short}e{int(power)}" if abs(int(power or 0)) > 2 else f"{value:.10g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, str | Path):
        return _quoted(str(value))
    try:
        return yaml.safe_dump(value, default_flow_style=True, width=10_000).split("\n")[0]
    except yaml.YAMLError:
        kind = type(value).__name__
        raise CptBenchError(f"a {kind} cannot be the value of a setting") from None


def _quoted(text: str) -> str:
    """``text`` as it is, or in quotation marks where it would be read as something else."""
    try:
        same = bool(value_of(text) == text)
    except CptBenchError:
        same = False
    return text if same else json.dumps(text, ensure_ascii=False)
