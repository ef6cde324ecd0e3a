"""The tests mirror the tree: a folder for each room, helpers in ``tests/support`` alone, files of one job."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

TESTS = ROOT / "tests"
FILES = [
    file
    for file in sorted(TESTS.rglob("*.py"))
    if file.name != "__init__.py" and "shim" not in file.parts
]
ROOMS = sorted(
    {init.parent.name for init in (ROOT / "cpt_bench").glob("*/__init__.py")}
    | {"tasks", "trainers"}
)
TEMPLATES = {"scaffold"}
"""Folders of the package that hold text files, and no code beyond what copies them."""


def imported(text: str) -> Iterator[str]:
    """Every module below ``tests`` that a source imports, also in functions and in quoted programs."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if is_test_module(name.name))
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level or base == "tests":
                yield from (f"{base}.{name.name}" for name in node.names)
            elif is_test_module(base):
                yield base
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from quoted(node.value)


def is_test_module(name: str) -> bool:
    return name.partition(".")[0] in ("tests", "conftest") or name.startswith("test_")


def quoted(text: str) -> Iterator[str]:
    """What a program in a string imports; nothing where the string is no program."""
    if "import" not in text or "tests" not in text:
        return
    try:
        yield from imported(text)
    except SyntaxError:
        return


def elsewhere(text: str) -> list[str]:
    """What a test file imports from other places than ``tests.support``."""
    return [name for name in imported(text) if not name.startswith("tests.support")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from tests.support.places import ROOT\nfrom tests.support import places", []),
        ("from tests.cli.test_cli import LIGHT", ["tests.cli.test_cli"]),
        ("def f():\n    from tests import simulated", ["tests.simulated"]),
        ("from tests.conftest import TINY\nimport conftest", ["tests.conftest", "conftest"]),
        ("from .test_cli import LIGHT", [".test_cli.LIGHT"]),
        ("import tests.cli.test_cli as cli", ["tests.cli.test_cli"]),
        ("P = 'import sys\\nfrom tests.run.test_kept import f'", ["tests.run.test_kept"]),
        ("P = 'what a test imports is in tests'", []),
    ],
)
def test_a_helper_from_another_test_file_is_seen(text: str, found: list[str]) -> None:
    assert elsewhere(text) == found


def test_helpers_come_from_support_alone() -> None:
    found = {file: elsewhere(file.read_text()) for file in FILES if file != Path(__file__)}
    assert {file: names for file, names in found.items() if names} == {}


def test_each_room_has_its_folder_of_tests() -> None:
    assert len(ROOMS) > 15
    for room in set(ROOMS) - TEMPLATES:
        assert list((TESTS / room).glob("test_*.py")), f"tests/{room} has no tests"


def test_each_folder_of_tests_is_of_a_room() -> None:
    folders = {folder.name for folder in TESTS.iterdir() if (folder / "__init__.py").is_file()}
    assert folders - {"support", "installed", "peers"} <= {*ROOMS}
    # Without its marker a folder's modules would clash with those of the same name elsewhere.
    assert {file.parent for file in FILES} <= {init.parent for init in TESTS.rglob("__init__.py")}


def test_tests_are_in_test_files_and_helpers_are_not() -> None:
    for file in FILES:
        tests = [
            node.name
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        helper = TESTS / "support" in file.parents or file.name == "conftest.py"
        assert helper != bool(tests), file
        assert helper != file.name.startswith("test_"), file


NAMED = re.compile(r"\btests/[\w/]+\.py(?:::\w+)?")


def test_the_tests_that_pages_and_comments_name_are_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
    pages += [p for room in ("cpt_bench", "tasks", "trainers") for p in (ROOT / room).rglob("*.py")]
    named = {
        (name, page) for page in pages for name in NAMED.findall(page.read_text(errors="replace"))
    }
    assert len(named) > 10
    gone = [pair for pair in named if not (ROOT / pair[0].partition("::")[0]).is_file()]
    assert not gone
