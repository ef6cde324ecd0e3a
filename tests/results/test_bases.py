"""Runs from different base models: each has its model's name, and no number mixes two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpt_bench.files import read_json, write_json
from cpt_bench.leaderboard.pack import _division, model_name
from cpt_bench.leaderboard.packable import Run as Packable
from cpt_bench.leaderboard.site.collect import Row, ranked
from cpt_bench.leaderboard.stats import Mean
from cpt_bench.report.grids import grids
from cpt_bench.results import scoring
from cpt_bench.results.compare import compare
from cpt_bench.results.load import load
from cpt_bench.suite import open_suite
from tests.support.simulated import write_run

SMALL = {
    "path": "Qwen/Qwen2.5-VL-3B-Instruct",
    "revision": "1" * 40,
    "weights": "a" * 64,
    "frame": "f" * 64,
}
LARGE = {"path": "Qwen/Qwen2.5-VL-7B-Instruct", "weights": "b" * 64, "frame": "f" * 64}


def write(folder: Path, base: dict[str, Any], **options: Any) -> None:
    write_run(folder, limit=10, diagnosed=False, **options)
    write_json(folder / "run.json", {**read_json(folder / "run.json"), "base": base})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    for seed in (0, 1):
        write(root / f"small-rft-{seed}", SMALL, seed=seed)
    # The same weights from a folder: the same model under another name.
    copied = {k: v for k, v in SMALL.items() if k != "revision"}
    write(root / "small-rft-2", {**copied, "path": "my-copy"}, seed=2)
    write(root / "small-sft-0", SMALL, trainer="sft")
    write(root / "large-rft-0", LARGE, seed=0)
    write(root / "large-joint-0", LARGE, trainer="joint", joint=True)
    return root


def test_methods_are_named_by_what_they_started_from(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "DRAWS", 50)
    found = compare(load(sorted(runs.iterdir())), draws=50)
    small, large = "from Qwen2.5-VL-3B-Instruct aaaaaaaa", "from Qwen2.5-VL-7B-Instruct bbbbbbbb"
    assert {m["name"]: m["seeds"] for m in found["methods"]} == {
        f"rft ({small})": [0, 1, 2], f"sft ({small})": [0],
        f"rft ({large})": [0], f"joint ({large})": [0],
    }  # fmt: skip
    assert not any("a" * 16 in m["name"] for m in found["methods"])
    pairs = {(p["first"], p["second"]) for p in found["pairs"]}
    assert pairs == {
        (f"joint ({large})", f"rft ({large})"), (f"rft ({small})", f"sft ({small})"),
    }, "differences are between methods that started from one model"  # fmt: skip
    assert [(j["method"], j["joint"]) for j in found["to_joint"]] == [
        (f"rft ({large})", f"joint ({large})")
    ]
    titles = [grid.title for grid in grids(found, f"rft ({small})")]
    assert any(title.startswith("Differences from rft (from Qwen2.5-VL-3B") for title in titles)


def test_one_base_model_is_in_no_name(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "DRAWS", 50)
    small = sorted(runs.glob("small-*"))
    assert {m["name"] for m in compare(load(small), draws=50)["methods"]} == {"rft", "sft"}


@pytest.mark.parametrize(
    ("suite", "base", "name", "division"),
    [
        ("cpt7", LARGE, "Qwen2.5-VL-7B-Instruct", "closed"),
        ("cpt7", SMALL, "Qwen2.5-VL-3B-Instruct", "open"),
        ("cpt7", {"path": "final", "weights": "c" * 64}, "weights-cccccccccccc", "open"),
        ("nano", SMALL, "Qwen2.5-VL-3B-Instruct", "open"),
        ("nano", {"path": "checkpoint", "weights": "c" * 64}, "weights-cccccccccccc", "open"),
    ],
)  # fmt: skip
def test_an_entry_names_its_own_base_model(
    suite: str, base: dict[str, Any], name: str, division: str
) -> None:
    none: Any = None
    run = Packable(Path(), open_suite(suite), {"base": base}, none, none, [])
    assert model_name(run) == name and _division(run) == division


def test_a_copy_of_the_suites_own_base_is_its_own(tmp_path: Path) -> None:
    nano, none = open_suite("nano"), None
    published = read_json(nano.folder / "base_row.json")
    facts = {"base": {"path": "a-copy", "weights": published["weights"]}}
    run = Packable(tmp_path, nano, facts, none, none, [])  # type: ignore[arg-type]
    assert model_name(run) == published["model"] and _division(run) == "closed"


def test_places_are_among_entries_of_one_base_model() -> None:
    blank = dict.fromkeys(Row._fields)
    rows = [
        Row(**{**blank, "id": f"{model}-{mean}", "suite": "cpt7", "division": "open", "model": model,
               "badge": "rescored", "superseded": "", "metrics": {"AvgAcc": Mean(mean, 0.1, 0.1, 3)}})
        for model, mean in (("3B", 50.0), ("7B", 70.0), ("3B", 40.0), ("7B", 60.0))
    ]  # fmt: skip
    places = {row.id: row.rank for row in ranked(rows)}
    assert places == {"3B-50.0": (1, 1), "3B-40.0": (2, 2), "7B-70.0": (1, 1), "7B-60.0": (2, 2)}
