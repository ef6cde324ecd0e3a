"""How quick the leaderboard's pages are with 2,000 entries, from disk, in headless Chromium.

python -m benchmarks.site [FOLDER]

Prints the first contentful paint of three loads; for sorting and filtering the milliseconds from
the event to the table laid out and to the next frame, and the processor time of the page's main
thread (script, style, layout, paint); the size of the data and the build's time.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cpt_bench.leaderboard.site.collect import Board, Row, ranked
from cpt_bench.leaderboard.site.render import render
from cpt_bench.leaderboard.stats import mean_of

TASKS = ("science", "text", "lowvision", "scene", "geometry", "pathology", "counting")
GENERAL = ("exam", "knowledge", "presence")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def synthetic(count: int) -> Board:
    """``count`` rows with full matrices, made by a coin."""
    rng = random.Random(7)
    methods = ("SFT", "RFT (GRPO)", "RFT (RLOO)", "Replay", "EWC", "LwF", "O-LoRA", "FLOW", "RaPO")
    models = ("nano-base", "Qwen2.5-VL-7B-Instruct", "Qwen3-VL-8B", "InternVL-4B")
    rows = []
    for i in range(count):
        seeds = rng.choice((1, 3, 3, 5))
        division = rng.choice(("closed", "closed", "open"))
        if seeds == 1:
            division = "open"
        centre = {
            "Learn": rng.gauss(50, 6), "AvgAcc": rng.gauss(42, 5), "FM": rng.gauss(-8, 4),
            "GeneralDelta": rng.gauss(-6, 5), "FM_paper": rng.gauss(-8, 3), "BWT": rng.gauss(-7, 4),
            "FWT": rng.gauss(1, 2), "Gain": rng.gauss(6, 4), "BaseAcc": 36.1,
        }  # fmt: skip
        metrics = {
            k: mean_of([v + rng.gauss(0, 0.8) for _ in range(seeds)]) for k, v in centre.items()
        }
        matrix = tuple(tuple(round(rng.uniform(10, 95), 1) for _ in range(10)) for _ in range(8))
        rows.append(
            Row(
                id=f"nano/1.0/{division}/2026-11-22__method-{i}__model",
                suite="nano 1.0", division=division, name=f"{rng.choice(methods)} v{i}",
                model=rng.choice(models), lane=rng.choice(("trainer", "checkpoints", "endpoint")),
                badge=rng.choice(("rescored", "rescored", "reproduced")), date="2026-11-22",
                authors=(f"Author {i % 97}",), seeds=seeds, style="direct",
                privileges=rng.choice(((), (), ("replay samples per task: 200",), ("joint",))),
                metrics=metrics, tasks=TASKS, general=GENERAL, matrix=matrix,
                notes="Made by a coin.",
            )
        )  # fmt: skip
    return Board(tuple(ranked(rows)))


def chromium() -> str | None:
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


TIMED = """
async ([selector, kind, value]) => {
  const node = document.querySelector(selector);
  const start = performance.now();
  if (kind === 'click') node.click();
  else { node.value = value; node.dispatchEvent(new Event(kind, {bubbles: true})); }
  document.body.offsetHeight;  // the layout of what changed
  const worked = performance.now() - start;
  await new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
  return [worked, performance.now() - start];
}
"""


def measure(site: Path) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    out: dict[str, Any] = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        paints = []
        for _ in range(3):
            page.goto((site / "index.html").as_uri())
            page.wait_for_selector("#board tbody tr")
            paints.append(
                page.evaluate(
                    "new Promise(d => { const f = () => { const e = performance.getEntriesByName("
                    "'first-contentful-paint')[0]; e ? d(e.startTime) : setTimeout(f, 20) }; f() })"
                )
            )
        out["first paint, ms"] = [round(p) for p in paints]
        page.wait_for_timeout(500)
        session = page.context.new_cdp_session(page)
        session.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
        session.send("Performance.enable")

        def spent() -> float:
            found = session.send("Performance.getMetrics")["metrics"]
            return 1000 * float(next(m["value"] for m in found if m["name"] == "TaskDuration"))

        for name, steps in {
            "sort": [
                [f'#board th[data-key="{k}"] button', "click", ""]
                for k in ("Learn", "FM", "FM", "name", "rank", "badge")
            ],
            "filter": [
                ["#search", "input", "grpo"], ["#search", "input", "v19"], ["#search", "input", ""],
                ["#f-division", "change", "open"], ["#f-division", "change", ""],
                ["#f-model", "change", "Qwen3-VL-8B"],
                ["#f-model", "change", ""],
            ],
        }.items():  # fmt: skip
            times = []
            for step in steps * 4:
                before = spent()
                took = page.evaluate(TIMED, step)
                times.append([*took, spent() - before])
                page.wait_for_timeout(250)
            for i, what in enumerate(("table laid out", "next frame", "main thread")):
                found = sorted(t[i] for t in times)
                out[f"{name}: {what}, ms"] = {
                    "least": round(found[0]),
                    "median": round(statistics.median(found)),
                    "most": round(found[-1]),
                }
        browser.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where to build them [a new one]")
    folder = (parser.parse_args().folder or Path(tempfile.mkdtemp())).absolute()
    start = time.perf_counter()
    render(synthetic(2000), folder)
    print(f"build of 2,000 rows: {time.perf_counter() - start:.2f} s; data.js "
          f"{(folder / 'data.js').stat().st_size / 1e6:.2f} MB")  # fmt: skip
    for what, value in measure(folder).items():
        print(f"{what}: {value}")


if __name__ == "__main__":
    main()
