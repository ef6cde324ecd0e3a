"""Joint training on the board: packed, verified, shown as the upper bound, and the gap to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.findings import Level
from cpt_bench.leaderboard.pack import About, pack
from cpt_bench.leaderboard.site.collect import Board, Row, by_seed, collect, with_gaps
from cpt_bench.leaderboard.site.render import as_csv, as_json, render
from cpt_bench.leaderboard.stats import mean_of
from cpt_bench.leaderboard.verify import verify
from cpt_bench.metrics.intervals import welch_interval
from tests.support.entries.forge import Rows, edit_entry, edit_json, edit_ledger, relabel
from tests.support.entries.make import TASKS, add_entry, make_entry, weights

Case = Callable[[Path], Any]


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(suite, an entry, the joint entry of its board), not to be changed."""
    folder = tmp_path_factory.mktemp("good")
    suite, entry = make_entry(folder)
    return suite, entry, add_entry(folder, suite, entry.parents[3], joint=True, name="Joint SFT")


@pytest.fixture(scope="module")
def board(good: tuple[Path, Path, Path]) -> Board:
    return collect(good[1].parents[3], str(good[0]))


@pytest.fixture
def joint(good: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """The joint entry, to be spoilt, on a board of its own."""
    inside = good[2].relative_to(good[2].parents[3])
    board = tmp_path / "leaderboards"
    shutil.copytree(good[2], board / inside)
    (board / "RULES.md").write_text("rules\n")
    return board / inside


# -------------------------------------------------------------------------------------- packing


def test_a_joint_run_has_two_rows_and_a_place_of_its_own(good: tuple[Path, Path, Path]) -> None:
    suite, _, joint = good
    assert joint.parent.name == "joint" and joint.parents[1].name == "1.0"
    stages = sorted(p.name for p in (joint / "seed-0/predictions").iterdir())
    assert stages == ["0-base", "3-text"]
    matrix = json.loads((joint / "seed-0/matrix.json").read_text())["accuracy"]
    assert [None in row for row in matrix] == [False, True, True, False]
    manifest = json.loads((joint / "seed-0/manifest.json").read_text())
    assert manifest["weights"]["3-text"] == weights(0, 3, True) and len(manifest["weights"]) == 2
    done = verify(joint, str(suite))
    assert [f.line() for f in done.report.findings()] == []
    assert done.report.verdict == "verified" and done.report.counts()["unverifiable"] == 0
    scores = done.seeds[0].scores
    assert scores is not None and scores.rows == (0, 3) and scores.missing() == []
    assert scores.metrics["Learn"]["value"] is None and scores.metrics["AvgAcc"]["value"] > 40


def test_a_joint_run_is_whole_without_the_rows_between(
    good: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(good[0].parent / "joint0", tmp_path / "run"))
    (run / "stages/3-text/predictions/science.jsonl").unlink()
    with pytest.raises(CptBenchError, match="is not finished: science was not evaluated after"):
        pack([run], About("Joint", ("A. Uthor",)), tmp_path / "b")


def test_joint_runs_belong_in_their_division(good: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Named or not; and no other run belongs there."""
    runs = [good[0].parent / f"joint{seed}" for seed in range(3)]
    for division in (None, "joint"):
        about = About("Joint", ("A. Uthor",), division=division, date="2026-11-22")
        entry = pack(runs, about, tmp_path / str(division))
        assert entry.parent.name == "joint"
    for division, words in (
        ("closed", "the closed division does not allow the privilege 'joint'"),
        ("open", "that is the upper bound, in the division 'joint'"),
    ):
        about = About("Joint", ("A. Uthor",), division=division, date="2026-11-22")
        report = verify(pack(runs, about, tmp_path / division), str(good[0])).report
        assert any(f.code == "privilege" and words in f.what for f in report.errors)
    others = [good[0].parent / f"run{seed}" for seed in range(3)]
    about = About("SFT", ("A. Uthor",), division="joint", date="2026-11-22")
    report = verify(pack(others, about, tmp_path / "sft"), str(good[0])).report
    assert any("without the privilege 'joint'" in f.what for f in report.errors)


# ------------------------------------------------------------------------------------ verifying


def ledger(change: Callable[[dict[str, Any]], Any], step: str) -> Case:
    def spoil(entry: Path) -> None:
        def edit(records: Rows) -> None:
            change(next(r for r in records if r["step"] == step))

        edit_ledger(entry / "seed-0", edit)

    return spoil


def rename(entry: Path, old: str, new: str) -> None:
    (entry / "seed-0/predictions" / old).rename(entry / "seed-0/predictions" / new)


TRAIN = "stage-3/train"
CASES: dict[str, tuple[Case, str, str]] = {
    "one task was left out": (ledger(lambda r: r["inputs"]["tasks"].pop(), TRAIN), "order", f"{TRAIN}: trained another task than science, counting, text"),
    "one task alone was trained": (ledger(lambda r: r["inputs"].update(tasks=r["inputs"]["tasks"][:1]), TRAIN), "order", TRAIN),
    "a task was trained twice": (ledger(lambda r: r["inputs"]["tasks"].append(r["inputs"]["tasks"][0]), TRAIN), "order", TRAIN),
    "another version of a task": (ledger(lambda r: r["inputs"]["tasks"][1].update(version=9), TRAIN), "data", "the card of counting"),
    "it started from other weights": (ledger(lambda r: r["inputs"].update(parent="a" * 64), TRAIN), "chain", "the weights of stage 0"),
    "it has a stage between": (ledger(lambda r: r.update(step="stage-2/train"), TRAIN), "ledger-step", "'stage-2/train', which is no step"),
    "it ran with other privileges": (ledger(lambda r: r["inputs"]["privileges"].update(replay_samples_per_task=9), TRAIN), "privilege", TRAIN),
    "it has the base's weights": (lambda e: relabel(e / "seed-0", {3: weights(0, 0)}), "same-weights", "0-base and 3-text"),
    "its answers lie in another stage": (lambda e: rename(e, "3-text", "2-counting"), "incomplete", "science after stage 3"),
    "the privilege is kept quiet": (lambda e: edit_entry(e, privileges={"joint": False, "replay_samples_per_task": 0, "earlier_checkpoints": False}), "privilege", "without the privilege"),
    "two seeds": (lambda e: (shutil.rmtree(e / "seed-2"), edit_entry(e, seeds=[0, 1])), "too-few-seeds", "the joint division asks for at least 3"),
    "data from elsewhere": (lambda e: edit_entry(e, extra_data="forty books"), "extra-data", "entry.yaml"),
    "a matrix with rows between": (lambda e: edit_json(e / "seed-0/matrix.json", lambda m: m["accuracy"].__setitem__(1, m["accuracy"][3])), "matrix", "accuracy[1]"),
    "an AvgAcc of its own": (lambda e: edit_json(e / "seed-0/metrics.json", lambda m: m["AvgAcc"].update(value=99.0)), "metric", "AvgAcc.value: claims 99.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_joint_entry_is_verified_like_any_other(
    name: str, good: tuple[Path, Path, Path], joint: Path
) -> None:
    spoil, code, words = CASES[name]
    spoil(joint)
    report = verify(joint, str(good[0])).report
    lines = [f.line() for f in report.findings() if f.level is Level.error]
    assert any(f.code == code and words in f.line() for f in report.errors), lines
    assert not any("cannot be checked" in line for line in lines)


def test_a_joint_seed_is_run_again(good: tuple[Path, Path, Path], joint: Path) -> None:
    from tests.test_reproductions import write_reproduction

    write_reproduction(joint, "B. Other", lambda new: new[0].update(reply="<answer>zz</answer>"))
    (found,) = verify(joint, str(good[0])).reproductions
    assert found.lifts and {c.name for c in found.comparisons} >= {"AvgAcc", "GeneralDelta"}


# -------------------------------------------------------------------------------------- the gap


def rows_of(board: Board) -> tuple[Row, Row]:
    sft, joint = (next(r for r in board.rows if r.division == d) for d in ("closed", "joint"))
    return sft, joint


def test_the_gap_is_paired_by_seed(board: Board) -> None:
    sft, joint = rows_of(board)
    apart = [by_seed(sft)[s] - by_seed(joint)[s] for s in range(3)]
    assert sft.metrics["GapToJoint"] == mean_of(apart) and sft.bound == joint.id
    assert "GapToJoint" not in joint.metrics and joint.bound == ""
    assert sft.metrics["GapToJoint"].mean < 0


def test_the_bound_stands_above_and_takes_no_place(board: Board) -> None:
    assert [row.division for row in board.rows] == ["joint", "closed"]
    sft, joint = rows_of(board)
    assert joint.rank is None and sft.rank == (1, 1) and joint.badge == "rescored"


def test_without_the_same_seeds_the_interval_is_welch_s(board: Board) -> None:
    sft, joint = rows_of(board)
    assert joint.verified is not None
    fewer = joint.verified._replace(seeds={n: joint.verified.seeds[n] for n in (0, 1)})
    metrics = {"AvgAcc": mean_of([by_seed(joint)[n] for n in (0, 1)])}
    other = joint._replace(verified=fewer, metrics=metrics)
    (found, _) = with_gaps([sft, other])
    gap = found.metrics["GapToJoint"]
    expected = welch_interval([*by_seed(sft).values()], [*by_seed(other).values()], "seeds")
    assert expected is not None and gap.half == (expected.high - expected.low) / 2
    assert gap.mean == sft.metrics["AvgAcc"].mean - metrics["AvgAcc"].mean


def test_the_highest_joint_entry_is_the_bound(board: Board) -> None:
    """Superseded, unverifiable ones and those of another base or suite are no bounds."""
    sft, joint = rows_of(board)
    better = {**joint.metrics, "AvgAcc": joint.metrics["AvgAcc"]._replace(mean=99.0)}
    higher = joint._replace(id="z", metrics=better)
    assert with_gaps([sft, joint, higher])[0].bound == "z"
    for change in (
        {"superseded": "y"}, {"badge": "unverifiable"}, {"suite": "small@mini 1.0"},
    ):  # fmt: skip
        assert with_gaps([sft, joint, higher._replace(**change)])[0].bound == joint.id
    assert joint.verified is not None and joint.verified.entry is not None
    model = joint.verified.entry.model.model_copy(update={"weights": "c" * 64})
    entry = joint.verified.entry.model_copy(update={"model": model})
    foreign = joint._replace(verified=joint.verified._replace(entry=entry))
    (alone, _) = with_gaps([sft._replace(metrics=dict(sft.metrics), bound=""), foreign])
    assert alone.bound == ""


def test_the_gap_on_the_pages(board: Board, tmp_path: Path) -> None:
    render(board, tmp_path)
    sft, joint = rows_of(board)
    data = as_json(board)
    line = next(r for r in data["rows"] if r["division"] == "closed")
    assert line["metrics"]["GapToJoint"][0] == round(sft.metrics["GapToJoint"].mean, 3)
    assert line["bound"] == joint.id and "GapToJoint" in data["columns"]
    assert "GapToJoint" in data["signed"] and "GapToJoint" in data["titles"]
    assert "GapToJoint,GapToJoint ±95%" in as_csv(board).splitlines()[0]
    page = next((tmp_path / "entries").glob("*closed*")).read_text()
    assert '<span class="key">GapToJoint</span>' in page and joint.id in page
    bound = next((tmp_path / "entries").glob("*joint*")).read_text()
    assert "upper bound" in bound and "all tasks" in bound and "1 science" not in bound
    assert all(task in bound for task in TASKS)
