"""The file of a sweep."""

from __future__ import annotations

from pathlib import Path


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "sweep.yaml"
    file.write_text(text)
    return file
