"""Parses settings given as ``key=value``, where the value is YAML.

Values are read as in files (:mod:`cpt_bench.documents`). If the setting's type is text, the value
is used as typed: ``mode=no``, ``tag=007`` and ``name=nan`` need no quotes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from cpt_bench.documents import parse_yaml
from cpt_bench.errors import CptBenchError


def assigned(settings: Iterable[str], option: str = "--set") -> dict[str, str]:
    """Key to the value's text, from ``key=value``; if a key is repeated, the last value counts.

    Args:
        settings: The settings, as given on the command line.
        option: The option that they were given with, for the error.

    Raises:
        CptBenchError: One is not ``key=value``.
    """
    found = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise CptBenchError(f"{option} {setting!r} is not key=value")
        found[key.strip()] = text
    return found


def value_of(text: str, kind: Any = Any) -> Any:
    """The value that ``text`` stands for.

    Args:
        text: As typed.
        kind: The setting's type; without one, the text is read as YAML.

    Raises:
        CptBenchError: It is not YAML or not a finite number, and the setting's type is not text.
    """
    try:
        value = _read(text)
    except CptBenchError:
        if _accepts(kind, text):
            return text
        raise
    if kind is Any:
        return value
    if isinstance(value, str) and not text.lstrip().startswith(("'", '"')):
        return text  # in YAML, a '#' would start a comment
    if _accepts(kind, value, strict=False):
        return value
    return text if _accepts(kind, text) else value


def field_type(field: FieldInfo) -> Any:
    """A field's type with its bounds, for :func:`value_of`."""
    kind: Any = field.annotation
    for bound in field.metadata:
        kind = Annotated[kind, bound]
    return kind


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``key=value``.

    Raises:
        CptBenchError: A value cannot be written as text.
    """
    return [f"{key}={spelled(value)}" for key, value in settings.items()]


def spelled(value: Any) -> str:
    """``value`` as text that :func:`value_of` reads back: ``1e-4``, ``true``, ``[1, 2]``, ``"5"``.

    Raises:
        CptBenchError: It cannot be written as text.
    """
    value = value.item() if hasattr(value, "item") else value  # a NumPy or torch number
    value = str(value) if isinstance(value, Path) else value
    if isinstance(value, float):
        digits, _, power = f"{value:.6e}".partition("e")
        short = digits.rstrip("0").rstrip(".")
        found = f"{short}e{int(power)}" if abs(int(power or 0)) > 2 else f"{value:.10g}"
        return found if float(found) == value else repr(value)
    if isinstance(value, str):
        try:
            plain = _read(value) == value
        except CptBenchError:
            plain = False
        return value if plain else _json(value)
    return _json(value)


def _json(value: Any) -> str:
    """JSON, which is also YAML, except for characters that YAML reads as line ends or refuses."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise CptBenchError(f"a {kind} cannot be the value of a setting") from None
    return _ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_ODD = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def _read(text: str) -> Any:
    try:
        value = parse_yaml(text, "")
    except CptBenchError:
        raise CptBenchError(f"{text!r} is not a value", todo="Quote it to give text") from None
    bare = text.strip()
    # YAML writes .nan and .inf; people write nan and inf, and do not mean text.
    number = bare.lower().lstrip("+-") in ("nan", "inf", "infinity")
    if number or not _finite(value):
        raise CptBenchError(f"{text!r} is not a finite number", todo="Quote it to give text")
    return value


def _finite(value: Any) -> bool:
    """Whether JSON can represent all numbers in ``value``."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _accepts(kind: Any, value: Any, strict: bool = True) -> bool:
    """Whether a setting of this type accepts ``value``, strictly, without converting text."""
    if kind is Any:
        return False
    try:
        taken = TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    except PydanticUserError:  # a type unknown to pydantic; the code that uses it validates it
        return not strict
    return isinstance(taken, str) or not strict
