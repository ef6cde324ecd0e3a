"""Somebody else runs an entry again: what lifts its badge, and what does not."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.entry import read_manifest, slug
from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.verify import verify
from tests.support.entries.forge import Rows as Table
from tests.support.entries.forge import change_answers, rows, table_of
from tests.support.entries.make import TASKS, make_entry


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(suite, entry), not to be changed; the runs are beside the suite."""
    return make_entry(tmp_path_factory.mktemp("good"))


@pytest.fixture
def copy(good: tuple[Path, Path], tmp_path: Path) -> Path:
    inside = good[1].relative_to(good[1].parents[3])
    return Path(shutil.copytree(good[1], tmp_path / "leaderboards" / inside))


def write_reproduction(entry: Path, by: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """A rerun of seed 0 whose answers are those of seed 0, changed."""
    folder = entry / "reproductions" / f"2026-11-25__{slug(by)}"
    for file in (entry / "seed-0/predictions").rglob("*.zst"):
        new = rows(file)
        if file.parent.name == "3-text":
            change(new)
        target = folder / "predictions" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        kept = ({k: row[k] for k in ("id", "reply", "tokens")} for row in new)
        zst(target, ((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in kept))
    from cpt_bench.leaderboard.reproduce import _report

    said = {
        "kind": "rerun",
        "seed": 0,
        "sample": 1.0,
        "weights": {},
        "versions": {},
        "hardware": {},
    }
    _report(folder, by, "2026-11-25", said)


def forget(new: list[dict[str, Any]]) -> None:
    for row in new:
        row["reply"] = "<answer>zz</answer>"


def badge(entry: Path, suite: Path) -> str:
    from cpt_bench.leaderboard.site.collect import row_of

    return row_of(verify(entry, str(suite)), "x").badge


def test_a_reproduction_lifts_the_badge(copy: Path, good: tuple[Path, Path]) -> None:
    assert badge(copy, good[0]) == "rescored"
    write_reproduction(copy, "A. Uthor", lambda new: None)  # by an author: counts for nothing
    done = verify(copy, str(good[0]))
    assert done.reproductions[0].reproduced and not done.reproductions[0].independent
    assert badge(copy, good[0]) == "rescored"
    write_reproduction(copy, "B. Other", lambda new: new[0].update(reply="<answer>zz</answer>"))
    assert badge(copy, good[0]) == "reproduced"


def test_a_reproduction_that_comes_out_differently(copy: Path, good: tuple[Path, Path]) -> None:
    write_reproduction(copy, "B. Other", forget)
    done = verify(copy, str(good[0]))
    assert not done.reproductions[0].reproduced
    off = {c.name for c in done.reproductions[0].comparisons if not c.within}
    assert {"AvgAcc", "FM"} <= off
    assert badge(copy, good[0]) == "rescored"


def rerun_of(
    entry: Path, suite: str | None, monkeypatch: pytest.MonkeyPatch, **recipe: Any
) -> list[str]:
    """The command that would train seed 0 again, had it run under ``recipe`` on a variant."""
    from cpt_bench.leaderboard import reproduce

    seen: list[list[str]] = []

    def refuse(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(reproduce.subprocess, "run", refuse)
    file = entry / "seed-0/recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | recipe))
    done = verify(entry, suite and suite.partition("@")[0])
    manifest = read_manifest(entry / "seed-0")
    mini = manifest.suite.model_copy(update={"variant": "mini"})
    manifest = manifest.model_copy(
        update={"suite": mini, "privileges": {"replay_samples_per_task": 8, "joint": False}}
    )
    with pytest.raises(CptBenchError, match="the rerun failed"):
        reproduce._rerun(done, 0, manifest, "cmd:me {stage}", None, None, suite)
    return seen[0]


def test_a_seed_is_trained_again_as_it_was(
    copy: Path, good: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same variant of the suite, with the same budget, launcher and engine."""
    chosen = {
        "budget": {"samples": 640},
        "launch": "torchrun --nproc_per_node 2",
        "engine": {"name": "vllm", "settings": {"memory": 0.4}},
    }
    command = rerun_of(copy, f"{good[0]}@other", monkeypatch, **chosen)
    options = dict(itertools.pairwise(command))
    assert options["--suite"] == f"{good[0]}@mini"
    assert (options["--budget"], options["--launch"]) == ("640", chosen["launch"])
    assert (options["--engine"], options["--engine-set"]) == ("vllm", "memory=0.4")
    assert "--privilege=replay_samples_per_task=8" in command
    assert not any("joint" in word for word in command)
    assert "small@mini" in rerun_of(copy, None, monkeypatch)


@pytest.mark.parametrize(
    "recipe",
    [
        {"launch": "torchrun evil.py"},
        {"launch": "accelerate launch --config_file evil.yaml"},
        {"engine": {"name": "./evil.py:Engine", "settings": {}}},
    ],
)
def test_an_entry_does_not_choose_what_is_run(recipe: dict[str, Any]) -> None:
    from cpt_bench.leaderboard.reproduce import _chosen

    with pytest.raises(CptBenchError, match="--checkpoints"):
        _chosen(recipe)


Rows = dict[tuple[str, str], list[dict[str, Any]]]


def write_sample(
    entry: Path, change: Callable[[Rows], Any], stages: tuple[str, ...] = ("1-science", "3-text")
) -> None:
    """A tenth of the questions of some stages, asked of seed 0's weights again; then changed."""
    from cpt_bench.leaderboard.reproduce import _report, _table
    from cpt_bench.leaderboard.reproductions import sampled

    weights = json.loads((entry / "seed-0/manifest.json").read_text())["weights"]
    asked: Rows = {}
    for stage in stages:
        for file in (entry / "seed-0/predictions" / stage).glob("*.zst"):
            all_ = {row["id"]: row for row in rows(file)}
            drawn = sampled(all_, 0.1, weights[stage])
            name = file.name.partition(".")[0]
            asked[stage, name] = [row for i, row in all_.items() if i in drawn]
    change(asked)
    folder = entry / "reproductions/2026-11-25__b.-other"
    for (stage, name), kept in asked.items():
        _table(folder, stage, name, kept)
    found = {stage: weights[stage] for stage in stages}
    said = {"kind": "checkpoints", "seed": 0, "sample": 0.1, "weights": found}
    _report(folder, "B. Other", "2026-11-25", {**said, "versions": {}, "hardware": {}})


def only(*cells: tuple[str, str]) -> Callable[[Rows], Any]:
    return lambda asked: [asked.pop(cell) for cell in [*asked] if cell not in cells]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda asked: None, ""),
        (only(("3-text", "text")), "1-science/science.jsonl.zst: answers 0 of the 6 questions"),
        (lambda asked: asked["3-text", "text"].pop(), "answers 5 of the 6 questions drawn"),
        (
            lambda asked: asked["3-text", "text"][0].update(id="text-test-00059"),
            "answers 5 of the 6 questions drawn, and 1 others",
        ),
        (lambda asked: asked.update({("2-counting", "text"): asked["3-text", "text"]}), "of the 0"),
    ],
)
def test_a_reproduction_asks_the_questions_that_were_drawn(
    change: Callable[[Rows], Any], words: str, copy: Path, good: tuple[Path, Path]
) -> None:
    write_sample(copy, change)
    done = verify(copy, str(good[0]))
    assert [r.reproduced for r in done.reproductions] == ([] if words else [True])
    assert not words or any(words in f.line() for f in done.report.errors if f.code == "sample")


def test_a_rerun_answers_all_questions(copy: Path, good: tuple[Path, Path]) -> None:
    """Whatever share its report names."""
    write_reproduction(copy, "B. Other", lambda new: new.pop(7))
    report = copy / "reproductions/2026-11-25__b.-other/report.json"
    report.write_text(report.read_text().replace('"sample": 1.0', '"sample": 0.5'))
    done = verify(copy, str(good[0]))
    assert not done.reproductions
    assert {f.code for f in done.report.errors} == {"missing-id"}


def test_a_sample_is_chosen_by_nobody() -> None:
    from cpt_bench.leaderboard.reproductions import sampled

    ids = [f"t-{i}" for i in range(300)]
    one, two = sampled(ids, 0.1, "weights a"), sampled(reversed(ids), 0.1, "weights a")
    assert one == two and len(one) == 30 and one != sampled(ids, 0.1, "weights b")
    assert len(sampled(ids, 1e-9, "w")) == 1


# ---------------------------------------------------- what nobody can see, and `reproduced` excludes


def swapped(entry: Path, suite: Path) -> None:
    """Two stages change places, in every seed, and all that is written follows."""
    for seed in range(3):
        folder = entry / f"seed-{seed}"
        names = (*TASKS, "knowledge")
        found = {(t, n): rows(table_of(folder, t, n)) for t in (1, 2) for n in names}
        change_answers(folder, suite, lambda t, n, now, found=found: found.get((3 - t, n)))


def improved(entry: Path, suite: Path) -> None:
    """A third of the answers become right, in every stage of every seed."""
    from cpt_bench.sources import load_split
    from cpt_bench.suite import load_suite

    for seed in range(3):

        def better(t: int, name: str, now: Table) -> None:
            gold = load_split(load_suite(suite).card(name), "test")
            for row, sample in list(zip(now, gold, strict=True))[::3] if t else []:
                row["reply"] = f"<answer>{sample.answers[0]}</answer>"

        change_answers(entry / f"seed-{seed}", suite, better)


@pytest.mark.parametrize(
    ("forge", "off"), [(swapped, "in their places"), (improved, "cells of 12")]
)
def test_what_an_entry_does_not_show_a_rerun_does(
    forge: Callable[[Path, Path], None], off: str, copy: Path, good: tuple[Path, Path]
) -> None:
    """RULES admits it: everything fits together, and the entry verifies. It is not reproduced."""
    honest = copy.parent / "honest"
    shutil.copytree(copy, honest)
    write_reproduction(honest, "B. Other", lambda new: None)
    forge(copy, good[0])
    report = verify(copy, str(good[0])).report
    assert report.verdict == "verified" and report.errors == []
    shutil.copytree(honest / "reproductions", copy / "reproductions")
    shutil.rmtree(honest)
    (found,) = verify(copy, str(good[0])).reproductions
    outside = [c.name for c in found.comparisons if not c.within]
    assert not found.reproduced and any(off in name for name in outside), outside
    assert badge(copy, good[0]) == "rescored"


def test_the_badge_takes_every_stage(copy: Path, good: tuple[Path, Path]) -> None:
    """Published weights of two stages of three: what was asked holds, the badge stays."""
    write_sample(copy, lambda asked: None)
    (found,) = verify(copy, str(good[0])).reproductions
    assert found.reproduced and found.independent and not found.whole and not found.lifts
    assert badge(copy, good[0]) == "rescored"
    shutil.rmtree(copy / "reproductions")
    write_sample(copy, lambda asked: None, stages=("1-science", "2-counting", "3-text"))
    assert badge(copy, good[0]) == "reproduced"


def test_the_page_says_what_was_not_shown(copy: Path, good: tuple[Path, Path]) -> None:
    from cpt_bench.leaderboard.site.collect import row_of
    from cpt_bench.leaderboard.site.entry_page import UNSEEN, unseen

    def said() -> list[str]:
        return unseen(row_of(verify(copy, str(good[0])), "x"))

    assert said() == [UNSEEN, "Nobody else has done so for this entry: its badge is 'rescored'."]
    write_sample(copy, lambda asked: None)
    assert said()[1].startswith(
        "Part of seed 0 by B. Other on 2026-11-25 was asked again, not every"
    )
    assert said()[2].endswith("its badge is 'rescored'.")
    shutil.rmtree(copy / "reproductions")
    write_reproduction(copy, "A. Uthor", lambda new: None)
    assert "an author or so called: the badge stays" in said()[1]
    shutil.rmtree(copy / "reproductions")
    write_reproduction(copy, "B. Other", forget)
    assert said()[1].startswith("Not reproduced: seed 0 by B. Other")
    shutil.rmtree(copy / "reproductions")
    write_reproduction(copy, "B. Other", lambda new: None)
    assert said()[1].startswith(
        "Reproduced: seed 0 by B. Other on 2026-11-25 was trained again and"
    )
    assert said()[2:] == ["Not run again: seeds 1, 2."]
