"""What every file for the Hugging Face hub is made with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import jinja2
import yaml


def home() -> str:
    """Where the package's repository is, if its metadata name it."""
    try:
        urls = metadata("cptbench").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    links = dict(url.split(", ", 1) for url in urls if ", " in url)
    found = str(links.get("Repository", ""))
    return "" if "/OWNER/" in found else found  # what pyproject.toml has until somebody hosts it


def environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("cpt_bench.leaderboard.site", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters["md"] = markdown
    return env


def markdown(text: str) -> str:
    """Words that stay words in Markdown: one line, no markup of theirs."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!$])", r"\\\1", " ".join(str(text).split()))


class _Plain(yaml.SafeDumper):
    """YAML without anchors and aliases, which a reader of a card would have to resolve."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)
    return text


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
