"""What MkDocs cannot do by itself: pages from outside docs/, links out of it, the board, the API.

Used by mkdocs.yml alone. Links between Markdown files are written for the repository, so that they
work where the files lie; here they become links between pages, or to the repository where there is
no page.
"""

from __future__ import annotations

import functools
import importlib.util
import posixpath
import re
import tempfile
import tomllib
from itertools import groupby
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from cpt_bench.cli.main import app
from cpt_bench.leaderboard.site.collect import Board, Row, collect
from cpt_bench.leaderboard.site.entry_page import HEADLINE as NUMBERS
from cpt_bench.leaderboard.site.entry_page import SIGNED, number, page_of
from cpt_bench.leaderboard.site.render import render

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"][
    "Repository"
]
PAGES = (
    "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "examples/README.md",
    "leaderboards/README.md", "leaderboards/RULES.md",
)  # fmt: skip
"""Pages from outside docs/, under the path they have in the repository."""
LINK = re.compile(r"(\]\()([^)\s#<>]+)(#[^)\s]*)?(\))")
FILE_NAME = re.compile(r"\[(?:[\w-]+/)*([\w-]+)\.md\]\(")  # a page is not a file to its reader
FENCE = re.compile(r"^(```.*?^```|~~~.*?^~~~)", re.M | re.S)


# ------------------------------------------------------------------------------------- pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the navigation's modules, and the repository's address."""
    for item in config.nav or []:
        if isinstance(item, dict) and "Reference" in item:
            for part in item["Reference"]:
                if isinstance(part, dict) and part.get("Python") == []:
                    part["Python"] = [{m: api_page(m)} for m in modules(config)]
    config.extra["social"] = [
        {"icon": "fontawesome/brands/github", "link": REPOSITORY, "name": "The repository"}
    ]
    return config


def modules(config: MkDocsConfig) -> list[str]:
    """The modules of mkdocs.yml's ``extra.api`` that are there."""
    return [name for name in config.extra["api"] if importlib.util.find_spec(name)]


def api_page(module: str) -> str:
    return f"api/{module}.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated, and what lies outside docs/."""
    for name in PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for module in modules(config):
        page = f"# {module}\n\n::: {module}\n"
        files.append(File.generated(config, api_page(module), content=page))
    files.append(File.generated(config, "cli.md", content=command_line()))
    folder = board_pages()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = "board/" + file.relative_to(folder).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(file)))
    return files


def command_line() -> str:
    """Every command with its options, from the commands themselves."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="cptbench")
    text = get_docs_for_click(obj=command, ctx=context, name="cptbench", title="Command line")
    lines, group = [], command
    for line in text.splitlines():
        if heading := re.fullmatch(r"#+ `cptbench (.+)`", line):
            group = functools.reduce(
                lambda at, name: at.commands[name], heading[1].split(), command
            )
        item = re.match(r"\* `([a-z-]+)`: .*\.\.\.$", line)
        if item and item[1] in getattr(group, "commands", {}):  # typer cuts these short
            line = f"* `{item[1]}`: {first_sentence(group.commands[item[1]].help)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph)[0]


# ----------------------------------------------------------------------------------- the board


@functools.cache
def board() -> Board:
    """All entries, each verified: about 12 seconds of processor time."""
    return collect(ROOT / "leaderboards")


@functools.cache
def board_pages() -> Path:
    out = Path(tempfile.mkdtemp(prefix="cptbench-board-"))
    render(board(), out, repository=f"{REPOSITORY}/blob/main/leaderboards", home="../index.html")
    return out


def entries() -> str:
    """The entries that take a place, a table for each suite's version and division.

    Above them stands their upper bound, where there is one.
    """
    shown = [row for row in board().rows if row.rank and row.verified is not None]
    shown.sort(key=lambda row: (row.suite, row.division, row.rank))
    heads = ("Rank", "Method", *NUMBERS, "Seeds", "Proof")
    lines = []
    for (suite, division), group in groupby(shown, lambda row: (row.suite, row.division)):
        rows = list(group)
        bounds = [row for row in board().rows if row.id in {other.bound for other in rows}]
        lines += [f"**{suite}**, {division} division:", ""]
        lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        lines += [*("| " + " | ".join(cells(row)) + " |" for row in (*bounds, *rows)), ""]
    return "\n".join(lines)


def cells(row: Row) -> list[str]:
    values = []
    for key in NUMBERS:
        mean = row.metrics.get(key)
        half = f"\u00a0±\u00a0{number(mean.half)}" if mean and mean.half is not None else ""
        values.append(number(mean.mean if mean else None, signed=key in SIGNED) + half)
    name = row.name.replace("|", "\\|").replace("[", "(").replace("]", ")")
    link = f"[{name}](board/{page_of(row)})"
    low, high = row.rank or (0, 0)
    rank = "bound" if row.rank is None else str(low) if low == high else f"{low}–{high}"
    return [rank, link, *values, str(row.seeds), row.badge]


# -------------------------------------------------------------------------------------- links


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that were written for the repository, outside of code."""
    if page.file.src_uri == "leaderboard.md":
        markdown = markdown.replace("<!-- entries -->", entries())
    here = page.file.src_uri if page.file.src_uri in PAGES else f"docs/{page.file.src_uri}"

    def moved(found: re.Match[str]) -> str:
        start, target, anchor, end = found.groups()
        return start + link(target, here, page.file.src_uri, files) + (anchor or "") + end

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(moved, FILE_NAME.sub(r"[\1](", part)) for part in parts[::2]]
    return "".join(parts)


def link(target: str, here: str, page: str, files: Files) -> str:
    """Where ``target``, as written in the repository's file ``here``, is from the page."""
    if re.match(r"[a-z]+:|/", target):
        return target
    place = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    inside = place.removeprefix("docs/")
    known = place if place in PAGES else inside if place.startswith("docs/") else ""
    if known and files.get_file_from_path(known):
        return posixpath.relpath(known, posixpath.dirname(page) or ".")
    if (ROOT / place).exists():
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{place}"
    return target  # MkDocs complains of it


def on_post_build(config: MkDocsConfig) -> None:
    """Without an address there is no map of addresses."""
    for file in Path(config.site_dir).glob("sitemap.xml*"):
        file.unlink()
