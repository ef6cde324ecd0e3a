"""The leaderboard's pages: what they show, that data stay data, and that they can be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.leaderboard.site.collect import Board, collect, ranked, row_of
from cpt_bench.leaderboard.site.entry_page import number, page_of
from cpt_bench.leaderboard.site.render import as_csv, as_json, render, script_safe
from tests.support.entries.make import add_entry, make_entry
from tests.support.places import ROOT

EVIL = '<img src=x onerror="window.hacked=1">\'"></script><script>window.hacked=1</script>'


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(suite, leaderboards/) with one good entry whose words try to be markup, and one bad entry."""
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        folder = tmp_path_factory.mktemp("site")
        suite, entry = make_entry(
            folder, name=EVIL[:80], authors=(EVIL,), notes=EVIL, paper="https://example.org/a?b=c&d"
        )
        bad = entry.with_name(entry.name.replace("2026-11-22", "2026-11-21"))
        shutil.copytree(entry, bad)
        (bad / "seed-0/matrix.json").write_text("{}\n")
        (folder / "leaderboards/cpt7").mkdir()
        shipped = ROOT / "leaderboards/cpt7/reported.yaml"
        shutil.copy(shipped, folder / "leaderboards/cpt7/reported.yaml")
        yield suite, folder / "leaderboards"  # type: ignore[misc]


@pytest.fixture(scope="module")
def board(boards: tuple[Path, Path]) -> Board:
    return collect(boards[1], str(boards[0]))


@pytest.fixture(scope="module")
def site(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    render(board, out)
    return out


def test_what_is_shown_and_what_is_left_out(board: Board) -> None:
    (good,) = [row for row in board.rows if row.verified]
    assert (good.badge, good.rank, good.seeds, good.lane) == ("rescored", (1, 1), 3, "trainer")
    assert len(good.matrix) == 4 and len(good.matrix[0]) == 4
    ((place, why),) = board.left_out
    assert "2026-11-21" in place and why.startswith("error: ")
    grey = [row for row in board.rows if row.division == "reported"]
    assert len(grey) == 8 and all(r.badge == "reported" and r.rank is None for r in grey)
    sft = next(row for row in grey if row.name == "SFT, sequential")
    assert sft.metrics["FM_paper"].mean == -10.4 and "FM" not in sft.metrics


def test_the_same_rows_give_the_same_bytes(board: Board, site: Path, tmp_path: Path) -> None:
    again = tmp_path / site.name
    render(board, again, repository="https://example.org/repo")
    for file in site.rglob("*"):
        if file.is_file() and file.parent.name != "entries":
            assert (again / file.relative_to(site)).read_bytes() == file.read_bytes()
    page = next((again / "entries").iterdir()).read_text()
    assert "https://example.org/repo/small/1.0/closed/" in page


def test_nothing_is_loaded_from_elsewhere_and_data_stay_data(site: Path) -> None:
    import re

    for file in site.rglob("*.html"):
        text = file.read_text()
        sources = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert not [s for s in sources if s.startswith("//")]
        outside = {s for s in sources if s.startswith("http")}
        assert outside <= {"https://example.org/a?b=c&amp;d"}
        assert "<img" not in text and "onerror=&#34;" not in text.replace("onerror=&#34;window", "")
        assert text.count("<script") == text.count("<script src=")
    assert "<" not in (site / "data.js").read_text()
    assert script_safe("</script>\u2028") == "\\u003c/script\\u003e\\u2028"
    for name in ("board.js", "compare.js", "common.js"):
        text = (site / name).read_text()
        assert "innerHTML" not in text and "insertAdjacent" not in text and "eval(" not in text
        assert set(re.findall(r"https?://\w[\w.]*", text)) <= {"http://www.w3.org"}


def test_an_entrys_metrics(site: Path) -> None:
    """Each general benchmark stands below their mean; what can be a gain has its sign."""
    page = next((site / "entries").iterdir()).read_text()
    heads = page.split('<th scope="row"')
    (at,) = [i for i, part in enumerate(heads) if part.startswith(">GeneralDelta<")]
    assert heads[at + 1].startswith(' class="sub">knowledge<') and " before, " in heads[at + 1]
    assert page.count('class="sub"') == 1
    (isolated,) = [part for part in heads if part.startswith(">Isolated<")]
    value = isolated.partition("<b>")[2].partition("<")[0]
    assert value[0] in "+−" or float(value) == 0


def test_the_json_and_the_csv(board: Board, site: Path) -> None:
    data = json.loads((site / "leaderboard.json").read_text())
    assert data == json.loads(json.dumps(as_json(board)))
    for row in data["rows"]:
        assert not row["page"] or (site / row["page"]).is_file()
    evil = board.rows[0]._replace(name="=HYPERLINK(1)", verified=None)
    assert as_csv(Board((evil,))).splitlines()[1].split(",")[2] == "'=HYPERLINK(1)"


def test_superseded_entries_take_no_place(board: Board) -> None:
    (good,) = [row for row in board.rows if row.verified]
    old = good._replace(id="old", superseded=good.id)
    one, two = ranked([old, good])
    assert {one.rank, two.rank} == {None, (1, 1)}


def test_each_variant_of_a_suite_has_a_board(board: Board) -> None:
    (good,) = [row for row in board.rows if row.verified]
    assert good.verified is not None and good.verified.entry is not None
    suite = good.verified.entry.suite.model_copy(update={"variant": "mini"})
    entry = good.verified.entry.model_copy(update={"suite": suite})
    mini = row_of(good.verified._replace(entry=entry), "mini")
    assert (good.suite, mini.suite) == ("small 1.0", "small@mini 1.0")
    assert [row.rank for row in ranked([good, mini])] == [(1, 1), (1, 1)]


def test_costs_that_are_no_costs_are_not_shown(board: Board, tmp_path: Path) -> None:
    from cpt_bench.leaderboard.site.entry_page import _costs

    (good,) = [row.verified for row in board.rows if row.verified]
    assert _costs(good) is not None
    for seed in good.seeds:
        (tmp_path / f"seed-{seed}").mkdir()
        file = tmp_path / f"seed-{seed}/environment.json"
        file.write_text(json.dumps({"sessions": [], "hardware": [1]}))
    assert _costs(good._replace(folder=tmp_path)) is None


def test_numbers_as_people_read_them() -> None:
    shown = [number(-8.72), number(0.04, signed=True), number(3.0, signed=True), number(None)]
    assert shown == ["−8.7", "0.0", "+3.0", "–"]


# ------------------------------------------------------------------------------- in a browser


class Page:
    """A page opened from disk that remembers every complaint of the browser."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.complaints: list[str] = []
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("request", lambda r: self._asked(r.url))
        self.page.goto(file.as_uri())

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.complaints.append(f"asked for {url}")

    def names(self) -> list[str]:
        return list(self.page.locator("#board tbody td.name > :first-child").all_inner_texts())


@pytest.mark.slow
def test_the_page_in_a_browser(browser: Any, site: Path) -> None:
    opened = Page(browser, site / "index.html")
    page = opened.page
    page.wait_for_selector("#board tbody tr")
    assert opened.names() == [EVIL[:80]]  # the suite with entries comes first; text stays text
    page.wait_for_selector("#plot circle")
    assert page.evaluate("window.hacked") is None
    # By keyboard: to the other suite, sort, search, into an entry.
    page.locator("#suites button", has_text="cpt7").focus()
    page.keyboard.press("Enter")
    assert len(opened.names()) == 8 and opened.names()[0] == "Joint SFT (multi-task)"
    assert "reported, not recomputable" in page.locator("#board tbody tr").first.inner_text()
    page.locator('#board th[data-key="FM_paper"] button').focus()
    page.keyboard.press("Enter")
    assert opened.names()[0] == "RFT (RLOO)"  # the highest first, gaps last
    assert page.locator('#board th[data-key="FM_paper"]').get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert opened.names()[0] == "SFT, sequential"  # focus stayed on the header
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("grpo kl")
    assert opened.names() == ["RFT (GRPO) without KL"]
    page.keyboard.type("zzz")
    assert (
        opened.names() == [] and page.locator("#status").inner_text() == "no row fits the filters"
    )
    page.goto((site / "index.html").as_uri())
    page.locator("#board td.name a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("table.heat")
    assert page.locator("h1").inner_text() == EVIL[:80]
    assert page.evaluate("window.hacked") is None
    page.goto((site / "compare.html").as_uri())
    page.wait_for_selector("#comparison table")
    assert opened.complaints == []


@pytest.mark.slow
def test_on_a_phone(browser: Any, site: Path) -> None:
    entry = next((site / "entries").iterdir())
    for file in (site / "index.html", entry, site / "compare.html"):
        opened = Page(browser, file, viewport={"width": 360, "height": 740}, color_scheme="dark")
        opened.page.wait_for_timeout(200)
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert opened.page.evaluate(wide) <= 0, file
        assert opened.complaints == []


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board with one method and a joint entry."""
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        folder = tmp_path_factory.mktemp("bounded")
        suite, entry = make_entry(folder)
        add_entry(folder, suite, entry.parents[3], joint=True, name="Joint SFT")
        return collect(entry.parents[3], str(suite))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_bound_in_a_browser(browser: Any, bounded: Board, tmp_path: Path, width: int) -> None:
    """Above the methods in whatever order; its page has two rows; compared without a complaint."""
    render(bounded, tmp_path)
    opened = Page(browser, tmp_path / "index.html", viewport={"width": width, "height": 900})
    page = opened.page
    page.wait_for_selector("#board tbody tr")
    for key in ("AvgAcc", "GapToJoint", "name", "rank"):
        for _ in range(2):
            page.locator(f'#board th[data-key="{key}"] button').click()
            assert opened.names() == ["Joint SFT", "SFT, small"], key
    first = page.locator("#board tbody tr").first
    assert first.locator("td.rank").inner_text().endswith("bound")
    assert "upper bound" in first.inner_text()
    page.locator("#f-division").select_option("joint")
    assert opened.names() == ["Joint SFT"]
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for file in [tmp_path / "compare.html", *(tmp_path / "entries").iterdir()]:
        page.goto(file.as_uri())
        page.wait_for_selector("table.heat")
        assert page.evaluate(wide) <= 0, file
    page.goto((tmp_path / "compare.html").as_uri())
    page.wait_for_selector("#comparison table.heat")
    assert "One of these is the upper bound" in page.locator("#comparison").inner_text()
    heads = page.locator("#comparison table.heat tbody th").all_inner_texts()
    assert heads[:2] == ["base", "the end"]
    assert opened.complaints == []


@pytest.mark.slow
def test_two_thousand_rows(browser: Any, tmp_path: Path) -> None:
    """All are reached, fifty at a time; how quick it is stands in benchmarks/site.py."""
    from benchmarks.site import synthetic

    full = synthetic(2000)
    render(full, tmp_path)
    opened = Page(browser, tmp_path / "index.html")
    page = opened.page
    page.wait_for_selector("#board tbody tr")
    assert page.locator("#status").inner_text() == "showing 50 of 2000 rows, by AvgAcc"
    best = max(full.rows, key=lambda r: round(r.metrics["AvgAcc"].mean, 3))
    assert opened.names()[0] == best.name
    page.locator("#f-division").select_option("open")
    count = sum(row.division == "open" for row in full.rows)
    assert page.locator("#status").inner_text() == f"showing 50 of {count} rows, by AvgAcc"
    page.locator("#show-all").click()
    assert len(opened.names()) == count
    assert opened.complaints == []


def test_pages_have_safe_names(board: Board) -> None:
    for row in board.rows:
        name = page_of(row._replace(id="nano/1.0/../<x>/é"))
        assert name == "entries/nano--1.0--..--x--.html"
