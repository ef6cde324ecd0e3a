"""Writes the hash and the size of a split into its card, and leaves the rest of the file alone."""

from __future__ import annotations

from pathlib import Path

import yaml

from cpt_bench.errors import CptBenchError
from cpt_bench.files import decoded, read_bytes, write_text


def pin(file: Path, split: str, n: int, sha256: str) -> bool:
    """Write ``n`` and ``sha256`` of a split into the card in ``file``; comments stay.

    Returns:
        Whether the file changed.

    Raises:
        CptBenchError: The card has no such split at its top, where this can write.
    """
    before = decoded(read_bytes(file), file)
    text = before
    for key, value in (("n", str(n)), ("sha256", sha256)):
        text = _replaced(text, file, split, key, value)
    if text != before:
        write_text(file, text)
    return text != before


def _replaced(text: str, file: Path, split: str, key: str, value: str) -> str:
    node = _child(_child(yaml.compose(text, Loader=yaml.SafeLoader), "splits"), split)
    if not isinstance(node, yaml.MappingNode):
        raise CptBenchError(
            f"has no splits.{split} to write {key}: {value} to", where=file, todo="Write it there"
        )
    found = _child(node, key)
    if found is not None:
        return text[: found.start_mark.index] + value + text[found.end_mark.index :]
    first = node.value[0][0].start_mark
    between = ", " if node.flow_style else f"\n{' ' * first.column}"
    return f"{text[: first.index]}{key}: {value}{between}{text[first.index :]}"


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
