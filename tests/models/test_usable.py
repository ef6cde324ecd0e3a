"""A torchvision that was built for another torch is as good as none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from cpt_bench.models.usable import hide_unusable_torchvision


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a torchvision of the test's own, which nobody has imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # undone with the rest
    del sys.modules["torchvision"]
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torchvision").mkdir()
    return tmp_path / "torchvision" / "__init__.py"


def test_one_that_does_not_import_is_hidden(place: Path) -> None:
    place.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    assert importlib.util.find_spec("torchvision") is not None
    assert hide_unusable_torchvision()
    assert importlib.util.find_spec("torchvision") is None  # what transformers asks
    with pytest.raises(ImportError):
        importlib.import_module("torchvision")
    assert hide_unusable_torchvision()


def test_one_that_imports_stays(place: Path) -> None:
    place.write_text("__version__ = '0.28.0'")
    assert not hide_unusable_torchvision()
    assert importlib.util.find_spec("torchvision") is not None
