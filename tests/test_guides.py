"""The guides are right: every command exists, and what a page shows is what is there."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import typer

from cpt_bench.cli.main import app
from cpt_bench.metrics import evaluate, matrix_from_json
from tests.support.pages import BLOCK, shell
from tests.support.places import ROOT

PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md",
    ROOT / "leaderboards/README.md", ROOT / "examples/README.md",
]  # fmt: skip


def written() -> list[tuple[str, str]]:
    out = []
    for page in PAGES:
        for line in shell(page):
            if found := re.search(r"(?:^|&& |; |do )\s*(cptbench .*?)(?:; done| &&|$)", line):
                out.append((page.relative_to(ROOT).as_posix(), found[1]))
    return out


@pytest.mark.parametrize(("page", "line"), written())
def test_every_command_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(re.split(r"\s[|>]\s|\s>>?\s", line)[0])[1:]
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="cptbench")
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: {line}"
        command = command.commands[words.pop(0)]
        context = typer.Context(command, parent=context, info_name=command.name)
    command.make_parser(context).parse_args(args=words)  # raises on an option that is not there


def test_the_pages_have_commands() -> None:
    assert len(written()) > 60 and {page for page, _ in written()} >= {"README.md", "docs/start.md"}


def test_the_matrix_of_the_explanation() -> None:
    """docs/forgetting.md: the column 'here' is computed from the matrix above it."""
    text = (ROOT / "docs/forgetting.md").read_text()
    block = next(block for block in re.findall(r"```\n(.*?)```", text, re.S) if "base" in block)
    rows = [[float(n) for n in re.findall(r" (\d\d)\b", line)] for line in block.splitlines()[1:]]
    assert np.shape(rows) == (4, 3)
    found = evaluate(matrix_from_json({"accuracy": rows}))
    table = re.findall(r"^\| (\w+) \| [^|]+ \| ([^|]*) \|", text, re.M)
    printed = {key: value.strip() for key, value in table if value.strip() not in ("", "here")}
    assert set(printed) == {"AvgAcc", "Learn", "FM", "BWT", "FWT", "Gain"}
    for key, value in printed.items():
        signed = "+" if key in ("FM", "BWT", "FWT", "Gain") else ""
        assert format(found[key]["value"], signed + ".1f").replace("-", "−") == value, key


def test_the_suite_of_the_guide_is_the_example() -> None:
    blocks = BLOCK.findall((ROOT / "docs/howto/suite.md").read_text())
    shown = {title: text for _, title, text in blocks if title}
    assert len(shown) == 3
    for title, text in shown.items():
        file = ROOT / "examples/suite" / title.removeprefix("my-suite/")
        assert file.read_text() == text, title
