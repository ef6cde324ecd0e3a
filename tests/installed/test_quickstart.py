"""examples/quickstart.ipynb runs from its first cell to its last, and its outputs are from such a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "examples/quickstart.ipynb"


def cells() -> list[Any]:
    notebook = json.loads(FILE.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(cell: Any) -> str:
    """What a cell printed and showed, as text."""
    parts = [out.get("text") or out["data"].get("text/plain", "") for out in cell["outputs"]]
    return "".join("".join(part) for part in parts)


def test_the_outputs_are_of_one_run_of_all_cells() -> None:
    found = cells()
    assert [cell["execution_count"] for cell in found] == list(range(1, len(found) + 1))
    assert not [out for c in found for out in c["outputs"] if out["output_type"] == "error"]
    assert not re.search(r"(?<![.\w])/(home|root|tmp|work|usr)/", FILE.read_text(encoding="utf-8"))
    assert FILE.stat().st_size < 300_000
    kinds = {kind for cell in found for out in cell["outputs"] for kind in out.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert "cpt_bench.compare" in "".join(line for cell in found for line in cell["source"])


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    """Every cell, on fewer samples; and it shows what the committed one shows, except numbers."""
    pytest.importorskip("torch")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    text = FILE.read_text(encoding="utf-8")
    small = text.replace('\\"limit\\": 48', '\\"limit\\": 4').replace(
        '\\"max_steps\\": 20', '\\"max_steps\\": 2'
    )
    assert small.count('\\"limit\\": 4,') == 1 and small.count('\\"max_steps\\": 2,') == 1
    notebook = nbformat.reads(small, as_version=4)
    before = [text_of(cell) for cell in cells()]
    nbclient.NotebookClient(
        notebook,
        timeout=1200,
        coalesce_streams=True,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    after = [text_of(cell) for cell in notebook.cells if cell.cell_type == "code"]
    runs = sorted(folder.name for folder in (tmp_path / "runs").glob("nano-*"))
    assert [name.split("-")[1] for name in runs] == ["averaged", "sft"]
    assert len(list((tmp_path / "runs/.trainers").iterdir())) == 1
    # The same tables: rows, columns and their order; the numbers depend on the machine.
    for old, new in zip(before, after, strict=True):
        shapes = [re.findall(r"^(?:base|\d \w+|after)\b", text, re.M) for text in (old, new)]
        assert shapes[0] == shapes[1]
    assert sum(text.count("accuracy after each stage") for text in after) == 2
