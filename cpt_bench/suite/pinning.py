"""Writes the hash and the size of a split into its card, and leaves the rest of the file alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cpt_bench.documents import parse_yaml
from cpt_bench.errors import CptBenchError
from cpt_bench.files import decoded, read_bytes, write_text


def pin(file: Path, split: str, n: int, sha256: str, inside: Sequence[str] = ()) -> bool:
    """Write ``n`` and ``sha256`` of a split into the card in ``file``; comments stay.

    Args:
        file: The card.
        split: The split's name.
        n: Its number of samples.
        sha256: Its digest.
        inside: The keys of the overlay to write into, as ``tiers``, ``mini``; empty for the top.

    Returns:
        Whether the file changed.

    Raises:
        CptBenchError: The file has no such overlay, or what is written there stands for other
            splits too (YAML's aliases).
    """
    before = decoded(read_bytes(file), file)
    text, path = before, (*inside, "splits", split)
    for key, value in (("n", str(n)), ("sha256", sha256)):
        text = _replaced(text, file, (*path, key), value)
    expected = copy.deepcopy(parse_yaml(before, file))
    place: Any = expected
    for key in path:
        # An alias is one object in two places: what is changed here must not change there.
        place[key] = copy.deepcopy(place.get(key) or {})
        place = place[key]
    place.update(n=n, sha256=sha256)
    if _parsed(text, file) != expected:
        raise CptBenchError(
            f"{'.'.join(path)} cannot be written alone: its YAML shares it with other keys (&, *)",
            where=file,
            todo=f"Write {'.'.join(path)} out in full",
        )
    if text != before:
        write_text(file, text)
    return text != before


def _parsed(text: str, file: Path) -> Any:
    """The document; None where it is not YAML any more, as without an anchor that is used below."""
    try:
        return parse_yaml(text, file)
    except CptBenchError:
        return None


def _replaced(text: str, file: Path, path: Sequence[str], value: str) -> str:
    """``text`` with ``value`` at ``path``; keys that are missing are added."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode) or not node.value:
            raise CptBenchError(
                f"has no {'.'.join(path[:depth])} to write {path[-1]}: {value} to",
                where=file,
                todo="Write it there",
            )
        found = next((inner for name, inner in node.value if name.value == key), None)
        if found is None:
            for name in reversed(path[depth + 1 :]):
                value = f"{{{name}: {value}}}"
            first = node.value[0][0].start_mark
            between = ", " if node.flow_style else f"\n{' ' * first.column}"
            return f"{text[: first.index]}{key}: {value}{between}{text[first.index :]}"
        node = found
    assert node is not None
    return text[: node.start_mark.index] + value + text[node.end_mark.index :]
