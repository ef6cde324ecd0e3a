"""What the harness takes from trainers and from runs beside it, and what it leaves; no model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.files import read_json, read_jsonl, write_json
from cpt_bench.results.folder import RunFolder
from cpt_bench.run import keys, layout
from cpt_bench.run.context import base_policy
from cpt_bench.run.layout import PARTS, collect, lay_out
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.plan import Plan
from cpt_bench.run.sequencer import alone, open_folder, opened, train_stages
from cpt_bench.run.splits import TrainSplits
from cpt_bench.stage.method import Method
from cpt_bench.stage.split import split_folder, write_split
from cpt_bench.suite import load_suite
from tests.support.places import TINY

# ---------------------------------------------------------------------- what a stage leaves behind


def left(root: Path) -> RunFolder:
    """A run whose first stage has written all that it must."""
    paths = RunFolder(root / "run", ("science",))
    for part in PARTS:
        place = paths.work(1) / part
        place.mkdir(parents=True)
        (place / "x").write_text(part)
    (paths.work(1) / "train.jsonl/x").unlink()
    (paths.work(1) / "train.jsonl").rmdir()
    (paths.work(1) / "train.jsonl").write_text("{}\n")
    return paths


LEFT: dict[str, Callable[[Path, Path], None]] = {
    "a link to a file": lambda work, secret: (work / "state/notes").symlink_to(secret / "gold"),
    "a link to a folder": lambda work, secret: (work / "memory/images").symlink_to(secret),
    "a link in a folder": lambda work, secret: (work / "checkpoint/x.json").symlink_to("../.."),
    "a pipe": lambda work, secret: os.mkfifo(work / "state/pipe"),
}


@pytest.mark.parametrize("what", LEFT)
def test_links_that_a_trainer_leaves_are_refused(what: str, tmp_path: Path) -> None:
    """Followed outside its view, they would bring hidden files into the next stage's."""
    paths, secret = left(tmp_path), tmp_path / "secret"
    secret.mkdir()
    (secret / "gold").write_text("42")
    LEFT[what](paths.work(1), secret)
    with pytest.raises(TrainerFault, match="neither a file nor a directory") as caught:
        collect(paths, 1)
    assert caught.value.kind == "link" and not paths.state(1).exists()


def test_what_a_stage_leaves_moves_to_its_places(tmp_path: Path) -> None:
    paths = left(tmp_path)
    collect(paths, 1)
    assert (paths.state(1) / "x").read_text() == "state" and not paths.work(1).exists()
    assert paths.train_log(1).read_text() == "{}\n"


# ------------------------------------------------------------------------ taken from a run beside


STEP = "stage-1/train"


def ledgers(root: Path) -> tuple[Ledger, Ledger]:
    """A run that has done a step of two outputs, and one that may take it."""
    for name, part in (("one/stages/1-a/state", "notes"), ("one/stages/1-a/memory", "a.jsonl")):
        (root / name).mkdir(parents=True)
        (root / name / part).write_text("{}")
    one = Ledger(root / "one", root / "shared")
    one.commit(STEP, {}, ["stages/1-a/state", "stages/1-a/memory"], {}, 1.0)
    return one, Ledger(root / "two", root / "shared")


def test_a_step_is_taken_whole_and_links_stay_links(tmp_path: Path) -> None:
    one, two = ledgers(tmp_path)
    (tmp_path / "two/stages/1-a/state").mkdir(parents=True)
    (tmp_path / "two/stages/1-a/state/old").write_text("left by a kill")
    found = two.find(STEP, {})
    assert found is not None and found["reused"] == "one"
    assert [p.name for p in (tmp_path / "two/stages/1-a/state").iterdir()] == ["notes"]
    assert two.find(STEP, {}) == found
    assert [p.name for p in (tmp_path / "two/ledger").iterdir()] == ["stage-1.train.json"]
    (tmp_path / "one/stages/1-a/state/link").symlink_to(tmp_path / "shared")
    one.commit(STEP, {}, ["stages/1-a/state"], {}, 1.0)
    three = Ledger(tmp_path / "three", tmp_path / "shared")
    assert three.find(STEP, {}) is not None
    assert (tmp_path / "three/stages/1-a/state/link").is_symlink()


@pytest.mark.parametrize("how", ["changed", "half gone", "gone", "dropped"])
def test_what_is_not_as_recorded_is_not_taken(how: str, tmp_path: Path) -> None:
    one, two = ledgers(tmp_path)
    file = tmp_path / "one/stages/1-a/memory/a.jsonl"
    if how == "changed":
        file.write_text("{} ")
    elif how == "half gone":
        file.unlink()
        file.parent.rmdir()
    elif how == "gone":
        one._file(STEP).unlink()
    else:
        one.drop(STEP, "stages/1-a/memory")
    assert two.find(STEP, {}) is None
    assert not (tmp_path / "two/stages").exists() and not list(tmp_path.glob("two/ledger/.*"))


def test_two_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        alone(tmp_path / "run"),
        pytest.raises(CptBenchError, match="another cptbench is working in this folder"),
        alone(tmp_path / "run"),
    ):
        pass
    with alone(tmp_path / "run"):
        pass


# ------------------------------------------------------------------------------------ what is asked


def checkpoint(folder: Path, template: str = "{{ x }}") -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "chat_template.jinja").write_text(template)
    return folder


def plan_of(base: Path, **changes: Any) -> Plan:
    return Plan(
        suite_spec=str(TINY), suite=load_suite(TINY), method=Method("m", {"spec": "m"}, {}), seed=0,
        limit=4, threads=1, overlap=False, keep="all", base=base,
    )._replace(**changes)  # fmt: skip


def asked(plan: Plan) -> dict[str, Any]:
    """The inputs of evaluating the base model on one task."""
    identity = plan.identity()
    return keys.evaluation(plan, identity, base_policy(plan, identity), "science")


def test_another_chat_template_is_another_model(tmp_path: Path) -> None:
    """It changes every reply and no weight."""
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other", "{{ y }}")
    plans = [plan_of(place) for place in (one, other)]
    assert len({json.dumps(plan.identity(), sort_keys=True) for plan in plans}) == 2
    first, second = map(asked, plans)
    assert first["weights"] == second["weights"] and first["frame"] != second["frame"]


@pytest.mark.parametrize(
    "chosen", [{"launch": "torchrun"}, {"general": ["lm-eval:x"]}, {"endpoint": {}}, {"given": {}}]
)
def test_a_run_that_chose_more_is_another_one(chosen: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_of(checkpoint(tmp_path / "base"))
    paths, identity = RunFolder(tmp_path / "run", plan.suite.sequence), plan.identity()
    open_folder(paths, identity)
    open_folder(paths, identity)
    write_json(paths.run_json, {**read_json(paths.run_json), **chosen})
    with pytest.raises(CptBenchError, match=f"holds another run: its {next(iter(chosen))} is"):
        open_folder(paths, identity)


def test_a_run_begun_before_templates_counted_goes_on(tmp_path: Path) -> None:
    plan = plan_of(checkpoint(tmp_path / "base"))
    paths, identity = RunFolder(tmp_path / "run", plan.suite.sequence), plan.identity()
    open_folder(paths, identity)
    known = read_json(paths.run_json)
    del known["base"]["frame"]
    write_json(paths.run_json, known)
    open_folder(paths, identity)
    assert "frame" not in keys.evaluation(plan, identity, base_policy(plan, identity), "science")


def test_runs_beside_this_one_are_out_of_a_trainer_s_sight(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "code").mkdir()
    plan = plan_of(checkpoint(tmp_path / "base"))
    (tmp_path / "base/model.safetensors").unlink()
    data = tmp_path / ".shared/data/science-1"
    for shared in (True, False):
        folder = data if shared else tmp_path / "one/data/science-1"
        paths = RunFolder(tmp_path / "one", plan.suite.sequence)
        view = lay_out(plan, paths, 1, 0, [folder], [plan.base]).view
        hides = [
            tmp_path / "report.html",
            tmp_path / "other/stages/0-base",
            data.with_name("science-test-2"),
            paths.root,
        ]
        assert all(view.hides(str(place)) for place in hides)
        seen = [tmp_path / "code", paths.work(1), folder, plan.base]
        assert not any(view.hides(str(place)) for place in seen)


# ------------------------------------------------------------------------------ what it trains on


@pytest.mark.parametrize("what", ["train.jsonl", "images/*", "nothing"])
def test_a_train_split_that_was_edited_is_not_trained_on(what: str, tmp_path: Path) -> None:
    plan = plan_of(checkpoint(tmp_path / "base"))
    with opened(plan, tmp_path / "run") as context:
        card, protocol = plan.suite.card("lowvision"), plan.suite.protocol
        folder = split_folder(card, protocol, 4, context.data)
        write_split(card, protocol, 4, folder)
        for file in sorted(folder.glob(what))[:1]:
            file.write_bytes(file.read_bytes() + b"\n")
        splits = TrainSplits(context)
        if what == "nothing":
            assert splits.folder("lowvision") == folder
        else:
            with pytest.raises(CptBenchError, match="was edited after it had been prepared"):
                splits.folder("lowvision")


def test_a_train_split_that_a_trainer_edited_is_removed(tmp_path: Path, monkeypatch: Any) -> None:
    """As it can where there are no namespaces; every later run would learn what it wrote."""
    plan = plan_of(checkpoint(tmp_path / "base"))
    protocol, data = plan.suite.protocol, tmp_path / "run/data"
    for task in plan.suite.sequence[:2]:
        card = plan.suite.card(task)
        write_split(card, protocol, 4, split_folder(card, protocol, 4, data))
    folder = split_folder(plan.suite.card("science"), protocol, 4, data)

    def edit(*_: object) -> dict[str, Any]:
        (folder / "train.jsonl").write_text("{}\n")
        return {}

    monkeypatch.setattr(layout, "count_parameters", lambda base: 0)
    with opened(plan, tmp_path / "run") as context:
        monkeypatch.setattr(context.workers, "start", lambda *job, **options: None)
        monkeypatch.setattr(context.workers, "result", edit)
        with pytest.raises(TrainerFault, match="it changed its inputs"):
            train_stages(context, [1])
    assert not folder.exists()
    assert read_jsonl(context.paths.failures)[0]["kind"] == "inputs-edited"
