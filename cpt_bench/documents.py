"""Reads YAML files written by people; errors name the line.

This is the only reader for suites, cards, recipes, sweeps, claims, indexes of plug-ins and the
values of ``--set``. Scalars follow YAML 1.2. PyYAML follows YAML 1.1, in which ``no`` and ``off``
are false, ``1e-4`` is text, ``010`` is eight and ``1:30`` is ninety: traps in a file of settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cpt_bench.errors import CptBenchError

# libyaml where PyYAML has it: ten times as quick, and every command reads cards.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class KeyTwiceError(yaml.MarkedYAMLError):
    """A mapping has one key twice, of which PyYAML would silently use the last.

    Attributes:
        key: The key.
        lines: ``in lines 3 and 7``.
    """

    def __init__(self, key: Any, first: int, mark: yaml.Mark) -> None:
        self.key, second = key, mark.line + 1
        self.lines = f"in line {second}" if first == second else f"in lines {first} and {second}"
        super().__init__(problem=f"the key {key!r} is given twice, {self.lines}", problem_mark=mark)


class Loader(_Base):  # type: ignore[misc]
    """Plain data: text, numbers, ``true`` and ``false``, ``null``, lists, mappings."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; duplicate keys are refused."""
        refuse_key_twice(self, node)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def refuse_key_twice(loader: Any, node: yaml.MappingNode) -> None:
    """Compare the keys of a mapping as written, before ``<<`` adds others.

    Raises:
        KeyTwiceError: Two are equal; the message names both lines.
    """
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str | int | float | None):
            problem = f"{key!r} is not a valid key: keys are text or numbers"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        if key in lines:
            raise KeyTwiceError(key, lines[key], key_node.start_mark)
        lines[key] = line


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).lower()
    return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))


def _number(loader: Any, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:e[-+]?[0-9]+)?|[-+]?\.inf|\.nan"
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", rf"(?i:{_NUMBER})", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _tag = f"tag:yaml.org,2002:{_name}"
    Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
Loader.add_constructor("tag:yaml.org,2002:int", _integer)
Loader.add_constructor("tag:yaml.org,2002:float", _number)


def parse_yaml(text: str, where: object) -> Any:
    """One YAML document.

    Args:
        text: The document.
        where: The document's name in errors; the line is added.

    Raises:
        CptBenchError: It is not YAML, or a mapping in it has a key twice.
    """
    try:
        return yaml.load(text, Loader=Loader)
    except KeyTwiceError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CptBenchError(
            str(error.problem), where=f"{where}:{line}", todo="Keep one of them"
        ) from None
    except yaml.YAMLError as error:
        raise CptBenchError(_problem(error), where=f"{where}{_line(error, text)}") from None
    except RecursionError:
        raise CptBenchError("not valid YAML (nested too deeply)", where=where) from None
    except ValueError as error:  # a whole number of thousands of digits
        raise CptBenchError(f"not valid YAML ({error})", where=where) from None


def read_yaml(file: Path) -> Any:
    """A YAML file.

    Raises:
        CptBenchError: It does not exist, or is not YAML in UTF-8; the message names the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise CptBenchError("no such file", where=file) from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise CptBenchError(f"not UTF-8 ({error.reason})", where=f"{file}:{line}") from None
    return parse_yaml(text, file)


def read_mapping(file: Path, of: str = "keys") -> dict[str, Any]:
    """A YAML file with a mapping; an empty file is an empty mapping.

    Args:
        file: The file.
        of: What the mapping contains, for the error: ``settings``.

    Raises:
        CptBenchError: As for :func:`read_yaml`, or it is not a mapping.
    """
    data = read_yaml(file)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise CptBenchError(f"not a mapping of {of} to values", where=file)
    return data


def _problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    return f"not valid YAML ({' '.join(str(problem).split())})"


def _line(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return f":{mark.line + 1}"
    position = getattr(error, "position", None)
    return "" if position is None else f":{text[:position].count(chr(10)) + 1}"
