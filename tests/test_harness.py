"""What the harness takes from trainers and from runs beside it, and what it leaves; no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.files import read_json, read_jsonl, write_json
from cpt_bench.plugins import resolve
from cpt_bench.results.folder import RunFolder
from cpt_bench.run import stages
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.plan import Plan
from cpt_bench.run.sequencer import Sequencer, _open, alone
from cpt_bench.run.stages import PARTS, finish_stage, order_stage
from cpt_bench.stage import command
from cpt_bench.stage.method import Method
from cpt_bench.stage.split import prepare, prepared
from cpt_bench.suite import load_suite
from tests.conftest import TINY

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
    with pytest.raises(TrainerFault, match="neither a file nor a folder") as caught:
        finish_stage(paths, 1)
    assert caught.value.kind == "link" and not paths.state(1).exists()


def test_what_a_stage_leaves_moves_to_its_places(tmp_path: Path) -> None:
    paths = left(tmp_path)
    finish_stage(paths, 1)
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


def sequence(plan: Plan, root: Path) -> Sequencer:
    paths = RunFolder(root, plan.suite.sequence)
    return Sequencer(plan, plan.identity(), paths, Ledger(root), lambda event: None)


def test_another_chat_template_is_another_model(tmp_path: Path) -> None:
    """It changes every reply and no weight."""
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other", "{{ y }}")
    plans = [plan_of(place) for place in (one, other)]
    assert len({json.dumps(plan.identity(), sort_keys=True) for plan in plans}) == 2
    runs = [sequence(plan, tmp_path / "run") for plan in plans]
    asked = [run.evaluation_inputs(0, "science") for run in runs]
    assert asked[0]["weights"] == asked[1]["weights"] and asked[0]["frame"] != asked[1]["frame"]


@pytest.mark.parametrize(
    "chosen", [{"launch": "torchrun"}, {"general": ["lm-eval:x"]}, {"endpoint": {}}, {"given": {}}]
)
def test_a_run_that_chose_more_is_another_one(chosen: dict[str, Any], tmp_path: Path) -> None:
    run = sequence(plan_of(checkpoint(tmp_path / "base")), tmp_path / "run")
    _open(run.paths, run.identity)
    _open(run.paths, run.identity)
    write_json(run.paths.run_json, {**read_json(run.paths.run_json), **chosen})
    with pytest.raises(CptBenchError, match=f"holds another run: its {next(iter(chosen))} is"):
        _open(run.paths, run.identity)


def test_a_run_begun_before_templates_counted_goes_on(tmp_path: Path) -> None:
    run = sequence(plan_of(checkpoint(tmp_path / "base")), tmp_path / "run")
    _open(run.paths, run.identity)
    known = read_json(run.paths.run_json)
    del known["base"]["frame"]
    write_json(run.paths.run_json, known)
    _open(run.paths, run.identity)
    again = Sequencer(run.plan, run.identity, run.paths, run.ledger, lambda event: None)
    assert "frame" not in again.evaluation_inputs(0, "science")


# ------------------------------------------------------------------------------------- which code


def package(root: Path) -> Path:
    """A package whose module leans on its parent's; returns what it leans on."""
    (root / "leaning/sub").mkdir(parents=True)
    for name in ("__init__", "common", "sub/__init__"):
        (root / f"leaning/{name}.py").touch()
    (root / "leaning/sub/m.py").write_text("from leaning import common\nclass It: ...\n")
    return root / "leaning/common.py"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("cmd:sh train.py {stage}", "train"), ("cmd:sh {root}/train.py", "train"),
        (f"cmd:{sys.executable} train.py", "train"), ("cmd:sh -m leaning.sub.m", "leaning.sub.m"),
        ("cmd:sh --module=x -m train", "train"), ("cmd:sh --module train", "train"), ("cmd:./train.py other.py", "train"),
        ("leaning.sub.m:It", "It"),
    ],
)  # fmt: skip
def test_another_line_of_code_is_another_method(
    spec: str, name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    common, train = package(tmp_path), tmp_path / "train.py"
    train.touch(0o755)
    spec = spec.replace("{root}", str(tmp_path))
    find = command.find if spec.startswith("cmd:") else partial(resolve, "trainers")
    before = find(spec)
    assert before.name == name and find(spec).origin == before.origin
    (common if "leaning" in spec else train).write_text("x = 1\n")
    assert find(spec).origin["sha256"] != before.origin["sha256"]
    sys.modules.pop("leaning.sub.m", None)


# ------------------------------------------------------------------------- what a trainer may see

INSIDE = """
import ctypes, json, os, subprocess, sys
from pathlib import Path
from cpt_bench.stage import isolation
root, how = Path(sys.argv[1]), sys.argv[2]
hidden, beside = root / "run", root / "beside"
if how == "unmounts":
    isolation._drop_rights = lambda: None
watch = isolation.enter(isolation.View((hidden,), (hidden / "work",), (), (beside, root / "page")))
if watch is None:
    print(json.dumps(None))
    sys.exit()
assert (root / "page").read_text() == ""
said = {"beside": os.listdir(beside), "work": os.listdir(hidden / "work"), "before": watch.opened()}
umount = lambda: ctypes.CDLL(None).umount2(os.fsencode(hidden), 2)
if how == "looks":
    said["unmounted"] = umount() == 0
    command = f"umount -l {hidden} || unshare -Urm umount -l {hidden} || nsenter -t {os.getppid()} -m true"
    said["by a child"] = subprocess.run(command, shell=True, capture_output=True).returncode == 0
    said["read"] = (hidden / "gold").read_text()
elif how == "unmounts":
    said["unmounted"] = umount() == 0
elif how == "closes":
    os.close(watch.handle)
elif how == "hides":
    os.dup2(os.open("/dev/null", os.O_RDONLY), watch.handle)
print(json.dumps({**said, "found": watch.opened()}))
"""


def inside(root: Path, how: str) -> dict[str, Any]:
    """What a process in a view of ``root`` sees."""
    for name in ("run/gold", "run/work/mine", "beside/gold", "page"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("42")
    command = [sys.executable, "-c", INSIDE, str(root), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] | None = json.loads(done.stdout)
    if found is None:
        pytest.skip("no namespaces here")
    assert (found["beside"], found["work"], found["before"]) == ([], ["mine"], [])
    return found


def test_a_view_cannot_be_taken_away(tmp_path: Path) -> None:
    found = inside(tmp_path, "looks")
    assert not found["unmounted"] and not found["by a child"]
    assert found["read"] == "" and found["found"] == [str(tmp_path / "run/gold")]


@pytest.mark.parametrize("how", ["unmounts", "closes", "hides"])
def test_a_watch_that_was_ended_is_a_fault(how: str, tmp_path: Path) -> None:
    assert inside(tmp_path, how)["found"]


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
        view = order_stage(plan, paths, 1, 0, [folder], [plan.base]).view
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
    run = sequence(plan_of(checkpoint(tmp_path / "base")), tmp_path / "run")
    suite = run.plan.suite
    folder = prepared(suite.card("lowvision"), suite.protocol, 4, run.data)
    prepare(suite.card("lowvision"), suite.protocol, 4, folder)
    for file in sorted(folder.glob(what))[:1]:
        file.write_bytes(file.read_bytes() + b"\n")
    if what == "nothing":
        assert run._prepared("lowvision").result() == folder
    else:
        with pytest.raises(CptBenchError, match="it was edited since"):
            run._prepared("lowvision").result()


def test_a_train_split_that_a_trainer_edited_is_removed(tmp_path: Path, monkeypatch: Any) -> None:
    """As it can where there are no namespaces; every later run would learn what it wrote."""
    plan = plan_of(checkpoint(tmp_path / "base"))
    run = sequence(plan, tmp_path / "run")
    folder = prepared(plan.suite.card("science"), plan.suite.protocol, 4, run.data)
    for task in plan.suite.sequence[:2]:
        card = plan.suite.card(task)
        prepare(card, plan.suite.protocol, 4, prepared(card, plan.suite.protocol, 4, run.data))

    def edit(worker: object, t: int) -> dict[str, Any]:
        (folder / "train.jsonl").write_text("{}\n")
        return {}

    monkeypatch.setattr(stages, "count_parameters", lambda base: 0)
    monkeypatch.setattr(run, "worker", lambda *order: None)
    monkeypatch.setattr(run, "result", edit)
    with pytest.raises(TrainerFault, match="it changed its inputs"):
        run.train(1)
    assert not folder.exists() and read_jsonl(run.paths.failures)[0]["kind"] == "inputs-edited"
