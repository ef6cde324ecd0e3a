"""Docstrings as Markdown, which misreads their formulas, Sphinx's roles and double colons."""

from __future__ import annotations

import re
from typing import Any

import griffe

CODE = re.compile(r"(`+[^`]+`+)")
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):(`+)~?")


class AsMarkdown(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """R[t][j] is not a link, a role is code, a double colon is one, and examples are code."""
    text = ROLE.sub(r"\1", re.sub(r"::(?=\n|$)", ":", text))
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
    return "\n".join(line if ">>>" in line else plain(line) for line in text.splitlines())


def plain(line: str) -> str:
    parts = CODE.split(line)
    parts[::2] = [part.replace("][", "]\\[") for part in parts[::2]]
    return "".join(parts)
