"""The site: built strictly, complete, usable offline from disk, wide and on a phone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.support.places import ROOT

DOCS = ROOT / "docs"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(
            tool, reason="the site's tools are not installed: pip install -e '.[docs]'"
        )
    out = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=500,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Links(HTMLParser):
    """What a page loads, what it links to, and which places it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.places |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and "href" in found and found.get("rel") not in ("next", "prev"):
            self.loads.append(found["href"])
        elif "src" in found:
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {file: Links(file.read_text()) for file in sorted(site.rglob("*.html"))}


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    for file in DOCS.rglob("*.md"):
        assert (site / file.relative_to(DOCS)).with_suffix(".html").is_file(), file
    for name in ("CONTRIBUTING", "CHANGELOG", "leaderboards/RULES", "cli", "board/index"):
        assert (site / f"{name}.html").is_file()
    assert not list(site.rglob("*.zst")) and not list(site.rglob("*.py"))
    assert list((site / "board/entries").glob("*.html"))


def test_every_module_that_is_there_has_its_page(site: Path) -> None:
    # Each is named once: in mkdocs.yml.
    names = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["extra"]["api"]
    there = {name for name in names if importlib.util.find_spec(name)}
    assert {"cpt_bench.trainer", "cpt_bench.metrics"} <= there
    for name in names:
        page = site / f"api/{name}.html"
        assert page.is_file() == (name in there)
    text = (site / "api/cpt_bench.trainer.html").read_text()
    for needed in ("Privileges", "policy", "samples", "output"):
        assert needed in text
    assert ":class:" not in text and ":func:" not in text and "::</p>" not in text


def test_no_link_is_broken(site: Path, pages: dict[Path, Links]) -> None:
    """In all pages, those of the board and the generated ones included."""
    broken = []
    for file, page in pages.items():
        if file.name == "404.html":  # its links are for a server
            continue
        for link in {*page.links, *page.loads}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not link or link.startswith("data:"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            # What follows # on the board's pages is what is shown, where it has a =.
            place = "" if "=" in parts.fragment else unquote(parts.fragment)
            places = pages[target].places if target in pages else {place}
            if not target.is_file():
                broken.append(f"{file.relative_to(site)}: {link}")
            elif place and not place.startswith("__") and place not in places:
                broken.append(f"{file.relative_to(site)}: {link} (no such place)")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Links]) -> None:
    for file, page in pages.items():
        outside = [link for link in page.loads if re.match(r"(?:\w+:)?//", link)]
        assert outside == [], file
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style


def test_what_can_be_searched(site: Path) -> None:
    found = json.loads((site / "search/search_index.json").read_text())["docs"]
    texts = {row["location"].partition("#")[0]: row["title"] for row in found}
    assert {"start.html", "conventions.html", "api/cpt_bench.trainer.html", "cli.html"} <= set(
        texts
    )


def test_the_leaderboard_s_page_shows_the_entries(site: Path) -> None:
    text = (site / "leaderboard.html").read_text()
    boards = ROOT / "leaderboards/nano/1.0"
    shown = [p for division in ("closed", "joint") for p in (boards / division).iterdir()]
    assert len(re.findall(r'href="board/entries/nano[^"]+"', text)) == len(shown)
    assert ">bound<" in text
    assert "<!-- entries -->" not in text
    entry = next((site / "board/entries").glob("*.html")).read_text()
    assert 'href="../../index.html"' in entry  # back to the site


# --------------------------------------------------------------------------------- in a browser


def opened(browser: Any, file: Path, complaints: list[str], **options: Any) -> Any:
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    local = ("file:", "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(local) or complaints.append(f"asked for {r.url}"))
    page.goto(file.as_uri())
    return page


def test_search_works_from_disk(browser: Any, site: Path) -> None:
    complaints: list[str] = []
    page = opened(browser, site / "index.html", complaints, viewport={"width": 1360, "height": 900})
    page.keyboard.press("/")
    page.keyboard.type("forgetting")
    page.wait_for_selector(".md-search-result__item")
    assert page.locator(".md-search-result__item").count() > 3
    page.locator(".md-search-result__link").first.click()
    page.wait_for_selector("article h1")
    assert complaints == []


def test_dark_and_light(browser: Any, site: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        page = opened(browser, site / "start.html", [], color_scheme=scheme)
        page.wait_for_timeout(200)
        seen[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = {k: sum(map(int, re.findall(r"\d+", v)[:3])) for k, v in seen.items()}
    assert lightness["light"] > 600 > 300 > lightness["dark"]


def test_on_a_phone_nothing_sticks_out(browser: Any, site: Path, pages: dict[Path, Links]) -> None:
    complaints: list[str] = []
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    page = opened(browser, site / "index.html", complaints, **phone)
    entry = next((site / "board/entries").glob("*.html"))
    for file in pages:
        if file.parent != entry.parent or file == entry:
            page.goto(file.as_uri())
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) <= 0, file
    assert complaints == []
