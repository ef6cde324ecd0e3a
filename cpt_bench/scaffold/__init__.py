"""``cptbench trainer new``: an installable package with one trainer and its test."""

from __future__ import annotations

import importlib.resources
import keyword
import re
from pathlib import Path
from string import Template

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import default

FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "src/{module}/__init__.py": "trainer.py.txt",
    "src/{module}/recipes/{suite}/{name}.yaml": "recipe.yaml.txt",
    "tests/test_{module}.py": "test.py.txt",
}
"""Where each template goes."""


def scaffold(name: str, parent: Path) -> Path:
    """Write a package called ``name`` into ``parent/name``.

    Raises:
        CptBenchError: The name is no package name, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise CptBenchError(
            f"{name!r} is no name for a package", todo="Use small letters, digits and hyphens"
        )
    folder = parent / name
    if folder.exists():
        raise CptBenchError("exists already", where=folder, todo="Choose another name")
    module = name.replace("-", "_")
    names = {
        "name": name,
        "module": module,
        "suite": default("suites", "run"),
        "cls": "".join(part.capitalize() for part in module.split("_")),
    }
    here = importlib.resources.files(__name__)
    for target, template in FILES.items():
        file = folder / target.format(**names)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (here / template).read_text(encoding="utf-8")
        file.write_text(Template(text).substitute(names), encoding="utf-8")
    return folder
