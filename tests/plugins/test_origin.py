"""Which code a plug-in is: another line of it is another method."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.plugins import resolve
from cpt_bench.stage import command


def package(root: Path) -> Path:
    """A package whose module leans on its parent's; returns what it leans on."""
    (root / "leaning/sub").mkdir(parents=True)
    for name in ("__init__", "common", "sub/__init__"):
        (root / f"leaning/{name}.py").touch()
    (root / "leaning/sub/m.py").write_text("from leaning import common\nclass It: ...\n")
    return root / "leaning/common.py"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("cmd:sh train.py {stage}", "train"), ("cmd:sh {root}/train.py", "train"),
        (f"cmd:{sys.executable} train.py", "train"), ("cmd:sh -m leaning.sub.m", "leaning.sub.m"),
        ("cmd:sh --module=x -m train", "train"), ("cmd:sh --module train", "train"), ("cmd:./train.py other.py", "train"),
        ("leaning.sub.m:It", "It"),
    ],
)  # fmt: skip
def test_another_line_of_code_is_another_method(
    spec: str, name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    common, train = package(tmp_path), tmp_path / "train.py"
    train.touch(0o755)
    spec = spec.replace("{root}", str(tmp_path))
    find = command.find if spec.startswith("cmd:") else partial(resolve, "trainers")
    before = find(spec)
    assert before.name == name and find(spec).origin == before.origin
    (common if "leaning" in spec else train).write_text("x = 1\n")
    assert find(spec).origin["sha256"] != before.origin["sha256"]
    sys.modules.pop("leaning.sub.m", None)
