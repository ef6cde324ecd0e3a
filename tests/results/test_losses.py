"""What kind of forgetting: by hand, and through whole (simulated) runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cpt_bench.results.losses import kinds, lost_and_won, peak_row, prefixes, to_ask
from cpt_bench.results.scoring import score, write_scores
from cpt_bench.suite import open_suite
from tests.support.simulated import splits, write_run


def test_kinds_by_hand() -> None:
    #                 kept  format mode content won  never
    before = np.array([1.0, 1, 1, 1, 0, 0])
    after = np.array([1.0, 0, 0, 0, 1, 0])
    lenient = np.array([1.0, 1, 0, 0, 1, 0])
    forced = {
        "reasoning": np.array([np.nan, np.nan, 0, 0, np.nan, np.nan]),
        "direct": np.array([np.nan, np.nan, 1, 0, np.nan, np.nan]),
    }
    found = kinds(before, after, lenient, forced)
    assert found.lost.tolist() == [0, 1, 1, 1, 0, 0]
    assert found.won.tolist() == [0, 0, 0, 0, 1, 0]
    assert found.format.tolist() == [0, 1, 0, 0, 0, 0]
    assert found.mode is not None and found.mode.tolist() == [0, 0, 1, 0, 0, 0]
    assert found.content is not None and found.content.tolist() == [0, 0, 0, 1, 0, 0]


def test_graded_scores_are_split_by_amount() -> None:
    found = kinds(np.array([1.0]), np.array([0.2]), np.array([0.5]), {"direct": np.array([0.9])})
    assert found.lost == pytest.approx([0.8]) and found.format == pytest.approx([0.3])
    assert found.mode == pytest.approx([0.4]) and found.content == pytest.approx([0.1])


def test_what_was_not_asked_is_not_known() -> None:
    before, after = np.array([1.0, 1]), np.array([0.0, 0])
    assert kinds(before, after, after, None).mode is None
    partly = {"direct": np.array([1.0, np.nan])}
    assert kinds(before, after, after, partly).content is None


def test_losses_add_up_for_any_scores() -> None:
    rng = np.random.default_rng(0)
    before, after, lenient, forced = rng.choice([0, 0.3, 0.6, 1.0], (4, 500))
    lenient = np.maximum(lenient, after)
    found = kinds(before, after, lenient, {"direct": forced})
    assert found.mode is not None and found.content is not None
    assert found.format + found.mode + found.content == pytest.approx(found.lost)
    assert found.won - found.lost == pytest.approx(after - before)
    for part in found:
        assert part is not None and (part >= -1e-12).all()
    assert lost_and_won(before, after)[0] == pytest.approx(found.lost)


def test_peak_is_the_first_of_equals() -> None:
    assert peak_row(np.array([0.9, 0.5, 0.7, 0.7, 0.6]), 1, 4) == 2


def test_only_the_lost_are_asked_again() -> None:
    def row(i: int, score: float, lenient: float) -> dict[str, object]:
        return {"id": f"s{i}", "score": score, "lenient": lenient}

    stage1 = [row(0, 1, 1), row(1, 1, 1), row(2, 1, 1), row(3, 0, 0)]
    stage2 = [row(0, 0, 0), row(1, 0, 0), row(2, 0, 0), row(3, 0, 0)]
    stage3 = [row(0, 1, 1), row(1, 0, 1), row(2, 0, 0), row(3, 1, 1)]
    rows = {0: stage2, 1: stage1, 2: stage2, 3: stage3}
    assert to_ask(rows, 0, 3) == ["s2"]  # kept; format; lost; won
    assert to_ask(rows, 2, 3) == []  # the last task
    assert to_ask({0: stage1, 3: stage3}, None, 3) == ["s2"]
    assert to_ask({0: stage1, 1: stage3}, 0, 1) == []  # one task


def test_the_ways_to_begin_come_from_the_protocol() -> None:
    protocol = open_suite("nano").protocol
    assert prefixes(protocol) == {"reasoning": "<think>", "direct": "<answer>"}
    bare = protocol.form.model_copy(update={"open": "", "close": "", "thought": ("", "")})
    assert prefixes(protocol.model_copy(update={"form": bare})) == {}


def test_a_run_s_losses_add_up_and_flips_are_bwt(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", formless=0.3)
    m = score(run, splits()).metrics
    assert m["Lost_format"]["value"] > 0 and m["Lost_mode"]["value"] > 0
    assert m["Lost_content"]["value"] > 0
    parts = sum(m[f"Lost_{kind}"]["value"] for kind in ("format", "mode", "content"))
    assert m["Lost"]["value"] == pytest.approx(parts)
    assert m["Won"]["value"] - m["Lost"]["value"] == pytest.approx(m["FM"]["value"])
    assert m["Flips_0to1"]["value"] - m["Flips_1to0"]["value"] == pytest.approx(m["BWT"]["value"])
    for key in ("Lost", "Lost_mode", "Flips_1to0"):
        bounds = m[key]["interval"]
        assert bounds["low"] < m[key]["value"] < bounds["high"]
        assert len(m[key]["tasks"]) == 6
    exam = m["GeneralDelta"]["benchmarks"]["exam"]
    assert exam["kinds"]["won"] - exam["kinds"]["lost"] == pytest.approx(exam["value"])


def test_forced_replies_are_regraded_not_believed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = score(run, splits()).metrics["Lost_mode"]["value"]
    file = next((run / "stages/7-counting/forced/direct").iterdir())
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**r, "lenient": 1.0, "score": 1.0}) + "\n" for r in rows))
    assert score(run, splits()).metrics["Lost_mode"]["value"] == before
    file.unlink()
    assert (
        score(run, splits()).metrics["Lost_mode"]["value"] <= before
    )  # the other prefix is still there


def test_an_old_run_says_what_was_not_measured(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", diagnosed=False)
    m = write_scores(run).metrics
    assert m["Lost"]["value"] is not None and m["Lost_format"]["value"] is not None
    for key in ("Lost_mode", "Lost_content", "KL_new", "KL_general"):
        assert m[key]["value"] is None
        assert "not measured in this run" in m[key]["missing"][0]


def test_kl_passports_come_from_the_run_s_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    rows = [json.loads(x) for x in (run / "stages/7-counting/kl.jsonl").read_text().splitlines()]
    m = score(run, splits()).metrics
    new = [row["kl"] for row in rows if row["name"] == "counting"]
    assert m["KL_new"]["value"] == pytest.approx(np.mean(new))
    assert m["KL_new"]["interval"]["low"] <= np.mean(new) <= m["KL_new"]["interval"]["high"]
    by_name = [
        np.mean([r["kl"] for r in rows if r["name"] == b])
        for b in ("exam", "knowledge", "presence")
    ]
    assert m["KL_general"]["value"] == pytest.approx(np.mean(by_name))
    assert sorted(m["KL_new"]["stages"], key=int) == [str(t) for t in range(1, 8)]
