"""The rooms of the house and their order: upper rooms import lower ones, and nothing goes round."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

FLOORS = (
    ("__main__",),
    ("cli",),
    ("__init__",),
    ("api",),
    ("study",),
    ("sweep",),
    ("leaderboard",),
    ("report",),
    ("advice", "scaffold", "toys"),
    ("run",),
    ("results",),
    ("stage",),
    ("trainers", "tasks"),
    ("worker",),
    ("general", "evaluation"),
    ("engines", "grading"),
    ("sources", "models"),
    ("trainer",),
    ("suite",),
    ("metrics",),
    ("hub",),
    ("plugins", "settings", "images", "environment", "processes"),
    ("documents",),
    ("files",),
    ("errors",),
)
"""From the roof to the ground. A room may import those below its own floor, and no other."""

AT_THE_ROOT = 10
"""The most modules that may stand at the root of the package."""


def modules() -> dict[str, Path]:
    """Module to file, for all that is installed as ``cpt_bench``."""
    found = {}
    for folder, package in (("cpt_bench", ()), ("tasks", ("tasks",)), ("trainers", ("trainers",))):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = [*package, *file.relative_to(ROOT / folder).with_suffix("").parts]
            if parts[-1] == "__init__" and len(parts) > 1:
                parts.pop()
            found[".".join(parts)] = file
    return found


MODULES = modules()


def imports(file: Path) -> Iterator[str]:
    """All that ``file`` imports of this package, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [n if n.removeprefix("cpt_bench.") in MODULES else base for n in names]
        else:
            continue
        for name in names:
            if name.startswith("cpt_bench."):
                yield name.removeprefix("cpt_bench.")
            elif name == "cpt_bench":
                yield "__init__"


GRAPH = {name: set(imports(file)) - {name} for name, file in MODULES.items()}


def room(module: str) -> str:
    return module.partition(".")[0]


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)


def test_every_room_has_a_floor() -> None:
    named = {room for rooms in FLOORS for room in rooms}
    assert {room(module) for module in MODULES} == named


def test_every_import_leads_to_a_module() -> None:
    unknown = {(a, b) for a, targets in GRAPH.items() for b in targets if b not in MODULES}
    assert not unknown


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_lower_rooms_alone(module: str) -> None:
    wrong = {
        target
        for target in GRAPH[module]
        if room(target) != room(module) and floor(target) <= floor(module)
    }
    assert not wrong, f"{module} imports {sorted(wrong)} of its own floor or above"


def test_no_circles() -> None:
    """Modules can be put in an order in which each imports only those before it."""
    left = dict(GRAPH)
    while left:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        assert free, f"these import each other: {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in free}


def test_few_modules_stand_at_the_root() -> None:
    at_root = [name for name, file in MODULES.items() if file.parent == ROOT / "cpt_bench"]
    assert len([n for n in at_root if n not in ("__init__", "__main__")]) <= AT_THE_ROOT, at_root


def test_the_graph_is_read_as_it_is() -> None:
    """Three edges that a reader of the source can confirm, one of each kind."""
    assert "files" in GRAPH["run.ledger"]
    assert "run.train" in GRAPH["run.sequencer"]
    assert "suite.cards" in GRAPH["suite"]  # a package's own __init__


# --------------------------------------------------------------------------------- JSON from outside

DECODERS = {
    "files": "parsed, read_json and parse_jsonl, which everything else calls",
    "leaderboard.strict": "an entry's files, whose every byte is checked",
    "sources.gym_helper": "a process that does without the package",
    "grading.symbolic_helper": "a process that does without the package",
    "general.vlmevalkit_driver": "a process that does without the package",
}
"""Modules that call the json module's decoder."""


def test_json_is_read_where_deep_nesting_is_an_error_and_no_traceback() -> None:
    """The json module raises RecursionError for it, and a caller who expects ValueError misses that."""
    inner = {module: f for module, f in MODULES.items() if not module.startswith("tasks")}
    found = {module for module, file in inner.items() if "json.load" in file.read_text("utf-8")}
    assert found == set(DECODERS)


# ------------------------------------------------------------------------- the tour in CONTRIBUTING

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMED = {
    path.rstrip(".")
    for path in re.findall(r"(?:cpt_bench|tasks|trainers|tests)/[\w./-]*", CONTRIBUTING)
}


def test_every_path_in_the_tour_exists() -> None:
    assert len(NAMED) > 30
    assert not [path for path in sorted(NAMED) if not (ROOT / path).exists()]


def test_the_tour_names_every_room() -> None:
    rooms = {room(module) for module in MODULES} - {"__init__", "__main__"}
    named = {path.removeprefix("cpt_bench/").rstrip("/").removesuffix(".py") for path in NAMED}
    assert not rooms - named


def test_the_tour_lists_rooms_in_their_order() -> None:
    table = re.findall(r"^\| `(?:cpt_bench/)?(\w+)", CONTRIBUTING, re.M)
    assert [floor(r) for r in table] == sorted(floor(r) for r in table)


def test_every_room_is_packaged() -> None:
    """A folder that ``pyproject.toml`` forgets is missing from the wheel alone."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    inside = [f.parent.relative_to(ROOT) for f in (ROOT / "cpt_bench").rglob("__init__.py")]
    beside = [
        Path("cpt_bench", f.parent.relative_to(ROOT))
        for room in ("tasks", "trainers")
        for f in (ROOT / room).rglob("__init__.py")
    ]
    assert sorted(listed) == sorted(".".join(folder.parts) for folder in (*inside, *beside))
