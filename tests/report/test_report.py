"""The report, opened as a person opens it: in a browser, from disk, without a network."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt_bench.report import embedded, write_report
from cpt_bench.report.payload import fits
from tests.support.commands import LIGHT
from tests.support.simulated import write_run

PLOTS = ("matrix", "curves", "waterfall", "pareto", "kinds", "kl", "habits", "training")
HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>\u202etxt\u2028\x00"
CELL = "R[7][1]: science after stage 7 (counting)"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    made = {
        "one": write_run(root / "one", formless=0.2),
        "two": write_run(root / "two", trainer="sft", decay=0.12, diagnosed=False),
        "hostile": write_run(root / f"evil{HOSTILE.replace('/', '')[:-1]}", trainer=HOSTILE,
                             spice=lambda reply: reply + HOSTILE),
    }  # fmt: skip
    made["broken"] = Path(shutil.copytree(made["one"], root / "broken"))
    (made["broken"] / "stages/7-counting/predictions/science.jsonl").unlink()
    return made


def opened(browser: Any, file: Path, **context: Any) -> tuple[Any, list[str]]:
    """The page, and what it should not have done: console messages, errors, requests."""
    page, bad = browser.new_page(**context), []
    page.set_default_timeout(60_000)
    page.on("console", lambda m: bad.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda e: bad.append(f"error: {e}"))
    page.on("request", lambda r: bad.append(r.url) if r.url.startswith("http") else None)
    page.on("dialog", lambda d: bad.append("dialog"))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    return page, bad


@pytest.mark.slow
def test_the_report_in_a_browser(runs: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    file = write_report([runs["one"]], tmp_path / "report.html")
    assert file.stat().st_size < 10e6
    page, bad = opened(browser, file)
    for plot in PLOTS:
        assert page.locator(f"#{plot}.js-plotly-plot .main-svg").count() > 0, plot
    assert page.locator("#matrix .annotation").count() == 8 * 10  # every cell shows its number
    # The filter narrows the list, to what the data says.
    page.select_option("#s-filter", "all")
    everything = page.locator("#s-list li").count()
    page.select_option("#s-filter", "lost")
    lost = page.locator("#s-list li").count()
    assert 0 < lost < everything
    assert page.locator("#s-detail tr.before .right").count() == 1
    assert page.locator("#s-detail tr.after .wrong").count() == 1
    page.select_option("#s-benchmark", label="scene")
    assert 0 < page.locator("#s-list li").count() < lost
    assert "scene" in page.locator("#s-list li").first.inner_text()
    # An image shows.
    image = page.locator("#s-detail img")
    image.first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#s-detail img').naturalWidth === 64")
    # Words narrow it further.
    page.fill("#s-words", "no question holds this")
    assert page.locator("#s-list li").count() == 0
    assert "No sample" in page.locator("#s-detail").inner_text()
    # Other figures are drawn on demand.
    for select in ("reading", "pareto-y", "kl-x", "kl-y", "figure"):
        for value in page.locator(f"#{select} option").evaluate_all("os => os.map(o => o.value)"):
            page.select_option(f"#{select}", value)
    assert bad == []
    page.close()


@pytest.mark.slow
def test_the_keyboard_reaches_everything(
    runs: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    page, bad = opened(browser, write_report([runs["one"], runs["two"]], tmp_path / "r.html"))
    wanted = set(page.evaluate(
        "[...document.querySelectorAll('button:not([tabindex=\"-1\"]), select, input, summary, a[href]')]"
        ".filter(e => e.offsetParent && !e.closest('.js-plotly-plot')).map((e, i) => (e.dataset.k = i, i))"
    ))  # fmt: skip
    reached = set()
    for _ in range(len(wanted) + 40):
        page.keyboard.press("Tab")
        key = page.evaluate("document.activeElement.dataset.k ?? null")
        if key is not None:
            reached.add(int(key))
    assert reached == wanted
    # In the list of samples the arrows move, and what is shown follows.
    page.locator("#s-list button[aria-current=true]").focus()
    first = (
        page.locator("#s-detail .question").inner_text(),
        page.locator("#s-detail .note").inner_text(),
    )
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = (
        page.locator("#s-detail .question").inner_text(),
        page.locator("#s-detail .note").inner_text(),
    )
    assert second != first
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    page.keyboard.press("Home")
    assert (
        page.locator("#s-detail .question").inner_text(),
        page.locator("#s-detail .note").inner_text(),
    ) == first
    # Every plot's numbers are there as a table.
    assert page.locator(".data details table").count() == len(PLOTS)
    page.focus("#theme")
    dark = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") != dark
    assert bad == []
    page.close()


@pytest.mark.slow
def test_dark_narrow_and_on_paper(runs: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    file = write_report([runs["one"]], tmp_path / "r.html")
    page, bad = opened(browser, file, color_scheme="dark", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    printed = page.pdf()
    assert printed.startswith(b"%PDF") and len(printed) > 50_000
    page.emulate_media(media="print")
    assert not page.locator(".bar").is_visible() and page.locator("#matrix").is_visible()
    assert bad == []
    page.close()


@pytest.mark.slow
def test_hostile_text_shows_as_text(runs: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    file = write_report([runs["hostile"], runs["one"]], tmp_path / "r.html")
    page, bad = opened(browser, file)
    page.select_option("#s-filter", "all")
    assert page.evaluate("window.pwned") is None
    assert "<script>window.pwned=1</script>" in page.locator("#s-detail .reply").last.inner_text()
    assert "<U+202E>txt" in page.locator("#s-detail .reply").last.inner_text()
    assert "<script>window.pwned=1" in page.locator("#methods").inner_text()
    assert "<script>window" in page.locator("#pareto").text_content()
    assert page.locator("main img:not([src^='data:image'])").count() == 0
    assert page.locator("main script").count() == 0
    assert bad == []
    page.close()


@pytest.mark.slow
def test_a_megabyte_of_text_is_cut_and_counted(browser: Any, tmp_path: Path) -> None:
    turn = itertools.count()

    def now_and_then(reply: str) -> str:
        return "y" * 1_000_000 if next(turn) % 25 == 0 else reply

    long = write_run(tmp_path / "long", limit=2, spice=now_and_then, diagnosed=False)
    file = write_report([long], tmp_path / "r.html")
    assert file.stat().st_size < 4e6
    page, bad = opened(browser, file)
    page.select_option("#s-filter", "all")
    page.fill("#s-words", "yyyyy")
    assert page.locator("#s-list li").count() > 0
    assert "(1,000,000 characters in all)" in page.locator("#s-detail").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert bad == []
    page.close()


@pytest.mark.slow
def test_missing_cells_and_what_was_not_measured(
    runs: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    file = write_report([runs["broken"], runs["two"]], tmp_path / "r.html")
    page, bad = opened(browser, file)
    assert CELL in page.locator("#missing").inner_text()
    assert CELL in page.locator("#tiles").inner_text()  # AvgAcc has no value and says why
    assert "missing" in page.locator("#matrix").text_content()
    page.select_option("#run", label="two")
    assert CELL not in page.locator("#tiles").inner_text()
    assert "not measured which" in page.locator("#kinds").text_content()
    alone, bad_alone = opened(browser, write_report([runs["two"]], tmp_path / "s.html"))
    assert "Not measured" in alone.locator("#kl").inner_text()
    assert bad == bad_alone == []
    page.close()


def test_data_in_the_page_cannot_end_its_script() -> None:
    nasty = {"</script>": "<!--<script>", "\u2028": "&amp;\ud800"}
    text = embedded(nasty)
    assert "<" not in text and ">" not in text and "&" not in text and text.isascii()
    assert json.loads(text) == nasty


def test_fits_are_least_squares() -> None:
    x = np.linspace(0, 2, 9)
    points = [
        {
            "kl_new": float(v),
            "kl_general": None,
            "general": float(1 - 2 * v + 3 * v**2),
            "tasks": None,
        }
        for v in x
    ]
    found = fits(points)
    assert found.keys() == {"kl_new,general"}
    assert found["kl_new,general"]["coefficients"] == pytest.approx([1, -2, 3], abs=1e-6)
    assert found["kl_new,general"]["r2"] == 1.0 and found["kl_new,general"]["n"] == 9
    assert fits(points[:4]) == {}


def test_the_command_needs_no_torch(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "r.html"
    command = [sys.executable, "-c", LIGHT, "report", str(runs["one"]), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.is_file() and str(out) in done.stdout
    done = subprocess.run([*command[:4], str(tmp_path / "deep")], capture_output=True, text=True)
    assert done.returncode == 2 and "neither a run folder nor a folder of runs" in done.stderr
