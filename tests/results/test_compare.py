"""Comparing: seeds pooled, samples paired, sources of chance apart, ties called ties."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.metrics import PARTS, t_quantile
from cpt_bench.report.grids import grids, html_tables, latex, markdown
from cpt_bench.report.text import visible
from cpt_bench.results import scoring
from cpt_bench.results.compare import Number, compare, mcnemar, share_of_joint
from cpt_bench.results.load import Run, load, methods, name_methods
from tests.support.commands import LIGHT
from tests.support.simulated import write_run

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[31m|$x_1$|{\\bf a}"


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """A run's own intervals from 200 resamples: these tests are about comparing, not about widths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with two seeds each, one with a single seed, one joint, one in another order."""
    root = tmp_path_factory.mktemp("runs")
    sequence = ("science", "text", "lowvision", "scene", "geometry", "pathology", "counting")
    turned = sequence[::-1]
    for seed in (0, 1):
        write_run(root / f"good-{seed}", seed=seed, config={"learning_rate": 1e-4}, decay=0.02)
        write_run(root / f"bad-{seed}", seed=seed, config={"learning_rate": 1e-3}, decay=0.1)
    write_run(root / "turned-0", config={"learning_rate": 1e-4}, decay=0.02, order=turned)
    write_run(root / "sft-0", trainer="sft", decay=0.02)
    write_run(root / "joint-0", trainer="joint", joint=True, decay=0.0)
    return root


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str, Run]:
    return {run.folder.name: run for run in load(sorted(folder.iterdir()))}


def of(found: dict, name: str) -> dict:
    return next(m for m in found["methods"] if m["name"] == name)


def pair(found: dict, first: str, second: str) -> dict:
    return next(p for p in found["pairs"] if {p["first"], p["second"]} == {first, second})


def test_another_engine_is_another_method(folder: Path, tmp_path: Path) -> None:
    """Its replies are not the same: it is no second run of one seed."""
    for name in ("sft-0", "sft-vllm"):
        shutil.copytree(folder / "sft-0", tmp_path / name)
    file = tmp_path / "sft-vllm/run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "engine": {"name": "vllm", "settings": {}}}))
    found = methods(load(sorted(tmp_path.iterdir())))
    assert [method.name for method in found] == ["sft", "sft (name=vllm)"]


GOOD, BAD = "rft (learning_rate=0.0001)", "rft (learning_rate=0.001)"


def test_seeds_are_pooled_and_paired(loaded: dict[str, Run]) -> None:
    runs = [loaded[f"{kind}-{seed}"] for kind in ("good", "bad") for seed in (0, 1)]
    found = compare(runs, draws=1000)
    assert [m["name"] for m in found["methods"]] == [GOOD, BAD]
    good, bad = (of(found, name)["numbers"]["AvgAcc"] for name in (GOOD, BAD))
    single = [r.scores.metrics["AvgAcc"]["value"] for r in runs]
    assert good["by_seed"] == single[:2]
    assert good["value"] == pytest.approx(np.mean(single[:2]))
    assert good["over_samples"]["low"] < good["value"] < good["over_samples"]["high"]
    half = t_quantile(0.975, 1) * np.std(single[:2], ddof=1) / np.sqrt(2)
    assert good["over_seeds"]["high"] == pytest.approx(good["value"] + half)
    assert good["over_seeds"]["method"] == "t over 2 seeds"
    d = pair(found, GOOD, BAD)["differences"]["AvgAcc"]
    assert d["value"] == pytest.approx(good["value"] - bad["value"])
    assert d["over_seeds"]["method"] == "t over 2 seeds, paired"
    by_seed = np.subtract(single[:2], single[2:])
    half = t_quantile(0.975, 1) * np.std(by_seed, ddof=1) / np.sqrt(2)
    assert d["over_seeds"]["low"] == pytest.approx(by_seed.mean() - half)
    # The methods answer the same samples: the difference is narrower than two separate intervals.
    width = d["over_samples"]["high"] - d["over_samples"]["low"]
    apart = [m["over_samples"]["high"] - m["over_samples"]["low"] for m in (good, bad)]
    assert width < np.hypot(*apart)


def test_a_method_ties_with_its_own_copy(folder: Path, tmp_path: Path) -> None:
    copy = write_run(tmp_path / "copy", config={"learning_rate": 1e-4, "note": "same"}, decay=0.02)
    found = compare(load([folder / "good-0", copy]), draws=500)
    for d in found["pairs"][0]["differences"].values():
        assert d["value"] == 0 and d["verdict"] == "tie"
        assert d["over_samples"]["low"] <= 0 <= d["over_samples"]["high"]
    assert all(t["p"] == 1.0 for t in found["pairs"][0]["tasks"].values())


def test_one_seed_says_nothing_about_seeds(loaded: dict[str, Run]) -> None:
    found = compare([loaded["good-0"], loaded["bad-0"]], draws=500)
    d = found["pairs"][0]["differences"]["BWT"]
    assert d["verdict"] == "higher" and d["over"] == ["samples"] and d["over_seeds"] is None
    assert "higher (one seed)" in markdown(grids(found, BAD))


def test_differing_seeds_are_not_paired(folder: Path, tmp_path: Path) -> None:
    other = [write_run(tmp_path / f"s{s}", trainer="sft", seed=s) for s in (5, 6)]
    found = compare(load([folder / "good-0", folder / "good-1", *other]), draws=300)
    d = found["pairs"][0]["differences"]["AvgAcc"]
    assert d["over_seeds"]["method"] == "Welch's t over 2 and 2 seeds"
    # Some seeds in common: pairing those alone would give the interval of another number.
    more = [folder / f"bad-{s}" for s in (0, 1)] + [write_run(tmp_path / "b2", seed=2, config={"learning_rate": 1e-3}, decay=0.1)]  # fmt: skip
    found = compare(load([folder / "good-0", folder / "good-1", *more]), draws=300)
    d = found["pairs"][0]["differences"]["AvgAcc"]
    assert d["over_seeds"]["method"] == "Welch's t over 2 and 3 seeds"
    assert d["over_seeds"]["low"] < d["value"] < d["over_seeds"]["high"]


def test_mcnemar_counts_samples(loaded: dict[str, Run]) -> None:
    runs = [loaded["good-0"], loaded["bad-0"]]
    a, b = methods(runs)
    first, second = (r.scores.outcomes["science"].strict[-1] for r in runs)
    found = mcnemar(a, b)["science"]
    assert found["wins"] == int(((first == 1) & (second == 0)).sum()) > 0
    assert found["losses"] == int(((first == 0) & (second == 1)).sum())
    assert found["p"] <= found["p_holm"] <= 1


def test_orders_stay_apart(loaded: dict[str, Run]) -> None:
    found = compare([loaded["good-0"], loaded["good-1"], loaded["turned-0"]], draws=300)
    assert [m["name"] for m in found["methods"]] == ["rft, order A", "rft, order B"]
    assert found["pairs"] == []  # the same method in two orders is no comparison of methods
    over = found["over_orders"]["rft"]["AvgAcc"]
    means = [m["numbers"]["AvgAcc"]["value"] for m in found["methods"]]
    assert over["by_order"] == pytest.approx(means) and over["worst"] == pytest.approx(min(means))
    assert over["over_orders"]["method"] == "t over 2 orders"
    over = found["over_orders"]["rft"]["Forgetting"]  # of which more is worse
    assert over["worst"] == max(over["by_order"])
    assert found["methods"][0]["numbers"]["AvgAcc"]["over_seeds"]["method"] == "t over 2 seeds"


def test_differing_versions_are_told(loaded: dict[str, Run]) -> None:
    first, second = loaded["good-0"], loaded["bad-0"]
    newer = second._replace(record={**second.record, "versions": {"cptbench": "1", "torch": "9"}})
    found = compare([first, newer], draws=100)
    assert found["versions_differ"] == ["cptbench", "torch"]
    assert "Not the same in all runs: cptbench, torch." in grids(found)[0].note


def test_gap_to_joint(loaded: dict[str, Run]) -> None:
    found = compare([loaded["good-0"], loaded["joint-0"]], draws=300)
    (gap,) = found["to_joint"]
    own, joint = (m["numbers"]["AvgAcc"]["value"] for m in found["methods"])
    assert gap["joint"] == "joint" and gap["value"] == pytest.approx(own - joint) and own < joint
    assert "GapToJoint" in markdown(grids(found))
    share = gap["CTM"]
    assert share["value"] == pytest.approx(own / joint) and share["over_seeds"] is None
    assert share["over_samples"]["low"] < share["value"] < share["over_samples"]["high"]


def test_ctm_is_a_ratio_of_means_and_1_of_itself(loaded: dict[str, Run]) -> None:
    good, joint = (methods([loaded[n] for n in names]) for names in
                   (("good-0", "good-1"), ("joint-0",)))  # fmt: skip

    def numbers(values: list[float]) -> list[Number]:
        spread = np.linspace(-1, 1, 200)
        return [Number(v, (spread,), ()) for v in values]

    found = share_of_joint(good[0], joint[0], numbers([30.0, 50.0]), numbers([80.0]))
    assert found is not None and found["value"] == pytest.approx(0.5)
    same = share_of_joint(good[0], good[0], numbers([30.0, 50.0]), numbers([30.0, 50.0]))
    assert same is not None and same["value"] == 1
    for kind in ("over_samples", "over_seeds"):  # on the same samples and seeds nothing varies
        assert same[kind]["low"] == pytest.approx(1) == same[kind]["high"]
    missing = [Number(None, (), ("R[7][1]",)), *numbers([1.0])]
    assert share_of_joint(good[0], good[0], missing, numbers([30.0, 50.0])) is None
    assert share_of_joint(good[0], joint[0], numbers([1.0, 2.0]), numbers([0.0])) is None


def test_the_parts_from_the_base_to_the_end_add_up(loaded: dict[str, Run]) -> None:
    found = compare([loaded["good-0"], loaded["good-1"], loaded["joint-0"]], draws=300)
    for method in found["methods"]:
        numbers = {key: method["numbers"][key]["value"] for key in (*PARTS, "AvgAcc")}
        assert sum(numbers[key] for key in PARTS) == pytest.approx(numbers["AvgAcc"])
    (table,) = (grid for grid in grids(found) if grid.title == "From the base to the end")
    assert table.header == ("method", *PARTS, "AvgAcc")
    assert any("{" in row[3] for row in table.rows)  # two seeds have an interval
    for method in found["methods"]:  # a joint run has no row in the middle
        method["numbers"]["TLG"] = {"value": None, "missing": ["R[1][2]"]}
    assert "From the base to the end" not in [grid.title for grid in grids(found)]


def test_a_failed_cell_leaves_no_number_and_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(folder / "bad-0", tmp_path / "broken"))
    (broken / "stages/7-counting/predictions/science.jsonl").unlink()
    found = compare(load([folder / "good-0", broken]), draws=300)
    cell = "R[7][1]: science after stage 7 (counting)"
    # A general benchmark after a stage in the middle is called for as well.
    (broken / "stages/3-lowvision/predictions/exam.jsonl").rename(tmp_path / "kept")
    among = compare(load([folder / "good-0", broken]), draws=300)["missing"]["broken"]
    assert among == [cell, "G[3][exam]: exam after stage 3 (lowvision)"]
    assert found["missing"] == {"broken": [cell]}
    number = of(found, BAD)["numbers"]["AvgAcc"]
    assert number["value"] is None and number["missing"] == [f"broken: {cell}"]
    assert of(found, BAD)["numbers"]["Learn"]["value"] is not None
    d = found["pairs"][0]["differences"]["AvgAcc"]
    assert d["value"] is None and d["verdict"] is None and cell in d["missing"]
    for text in (markdown(grids(found)), latex(grids(found)), html_tables(grids(found))):
        assert "science after stage 7" in text
    page = html_tables(grids(found))
    assert f"<td><bdi>{cell}</bdi></td>" in page
    assert "<small>[" in page and "<td>R<small>" not in page


def test_runs_that_cannot_be_compared(folder: Path, loaded: dict[str, Run], tmp_path: Path) -> None:
    small = write_run(tmp_path / "small", limit=20)
    with pytest.raises(CptBenchError, match="has another --limit"):
        load([folder / "good-0", small])
    with pytest.raises(CptBenchError, match="not a run folder"):
        load([tmp_path])
    twin = write_run(tmp_path / "twin", config={"learning_rate": 1e-4}, decay=0.02)
    with pytest.raises(CptBenchError, match="good-0 and twin are the same method, order and seed"):
        methods(load([folder / "good-0", twin]))
    found = compare([loaded["good-0"]], draws=100)
    with pytest.raises(CptBenchError, match=r"no method is called 'rtf'\. Did you mean 'rft'"):
        grids(found, "rtf")


def test_names_say_what_differs() -> None:
    def method(**config: object) -> dict:
        return {"trainer": "rft", "config": {"lr": 1, **config}, "privileges": {}}

    assert name_methods([method(a=1), method(a=2)]) == ["rft (a=1)", "rft (a=2)"]
    assert name_methods([method(a=1)]) == ["rft"]
    long = name_methods([method(a="x" * 500), method(a="y" * 500)])
    assert all(len(n) <= 84 for n in long) and len(set(long)) == 2


def test_hostile_names_are_text_in_every_format(folder: Path, tmp_path: Path) -> None:
    mean = write_run(tmp_path / "mean", trainer=HOSTILE)
    tables = grids(compare(load([folder / "good-0", mean]), draws=100))
    page, md, tex = html_tables(tables), markdown(tables), latex(tables)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "<script" not in md and "&lt;script&gt;" in md
    for text in (page, md, tex):
        assert "\u202e" not in text and "\x1b" not in text
    assert r"\$x\_1\$" in tex and r"\{\textbackslash{}bf a\}" in tex
    row = next(line for line in md.splitlines() if "alert" in line and line.startswith("|"))
    assert row.replace(r"\|", "").count("|") == 9  # eight columns: its own bars are escaped


def test_what_cannot_be_seen_becomes_visible() -> None:
    assert visible("a\u202eb\x00c\ud800") == "a<U+202E>b<U+0000>c<U+D800>"
    assert (
        visible("two\nlines\t.") == "two\nlines\t."
        and visible("two\nlines", lines=False) == "two lines"
    )
    assert visible("שלום é 漢") == "שלום é 漢"
    assert visible("x" * 3_000_000).endswith("… (3,000,000 characters in all)")


@pytest.mark.slow
def test_the_command_writes_each_format_without_torch(folder: Path, tmp_path: Path) -> None:
    names = {"--json": "c.json", "--html": "c.html", "--markdown": "c.md", "--latex": "c.tex"}
    args = [x for option, file in names.items() for x in (option, str(tmp_path / file))]
    command = [
        sys.executable,
        "-c",
        LIGHT,
        "compare",
        str(folder / "good-0"),
        str(folder / "bad-0"),
        *args,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "c.json").read_text())["methods"][0]["name"] == GOOD
    assert "\\toprule" in (tmp_path / "c.tex").read_text()
    page = (tmp_path / "c.html").read_text()
    assert page.startswith("<!doctype html>") and "<table>" in page and "http://" not in page
    assert "| method |" in (tmp_path / "c.md").read_text()
    done = subprocess.run(command[:6], capture_output=True, text=True)
    assert "Differences from" in done.stdout
