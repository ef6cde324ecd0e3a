"""The report on a telephone and on a desk: nothing of a plot is cut, and what scrolls says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpt_bench.report import write_report
from tests.support.simulated import write_run

pytestmark = pytest.mark.slow

CUT = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap((plot) => {
  const frame = plot.getBoundingClientRect();
  return [...plot.querySelectorAll('.xtick text, .ytick text, .xtitle, .ytitle, .y2title, .legendtext')]
    .filter((t) => t.textContent.trim())
    .filter((t) => { const b = t.getBoundingClientRect();
      return b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1; })
    .map((t) => `${plot.id}: ${t.textContent}`);
})"""
STAGES = ["base", "1 science", "2 text", "3 lowvision", "4 scene", "5 geometry", "6 pathology",
          "7 counting"]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("narrow")
    one = write_run(root / "one", formless=0.2)
    two = write_run(root / "two", trainer="sft", decay=0.12, diagnosed=False)
    return write_report([one, two], root / "report.html")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_cut(width: int, file: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(20_000)
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert page.evaluate(CUT) == []
    for plot in ("curves", "habits"):
        ticks = page.locator(f"#{plot} .xtick text").all_text_contents()
        assert ticks == STAGES, plot
    for value in ("kl_new", "kl_general"):
        page.select_option("#kl-x", value)
        for other in ("general", "tasks"):
            page.select_option("#kl-y", other)
            assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Every box that scrolls sideways says so, and no other one.
    boxes = page.locator(".scroll").evaluate_all(
        "bs => bs.filter(b => b.offsetParent).map(b => [b.scrollWidth > b.clientWidth + 1,"
        " b.hasAttribute('data-wide'), getComputedStyle(b, '::before').content])"
    )
    assert boxes and all(over == said for over, said, _ in boxes)
    assert all(("sideways" in words) == said for _, said, words in boxes)
    if width <= 390:
        assert sum(over for over, _, _ in boxes) >= 4
    page.close()


def test_turning_the_telephone_draws_again(file: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 844, "height": 390})
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    page.set_viewport_size({"width": 390, "height": 844})
    for _ in range(100):  # plots follow a little later
        if not (cut := page.evaluate(CUT)):
            break
        page.wait_for_timeout(100)
    assert cut == []
    assert page.locator("#curves .xtick text").all_text_contents() == STAGES
    page.close()
