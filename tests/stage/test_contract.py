"""The trainer contract: what a trainer gets, and that whoever breaks it is caught and named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.files import read_jsonl
from cpt_bench.results.folder import RunFolder
from cpt_bench.run.layout import lay_out
from cpt_bench.run.ledger import Ledger
from cpt_bench.stage import training
from cpt_bench.stage.split import write_split
from cpt_bench.stage.trainers import trainer_of
from cpt_bench.trainer import Budget
from tests.support.commands import here
from tests.support.made_trainers import make_plan, train
from tests.support.places import ROOT, TINY

HOSTILE = {
    "reads the test split": ("privilege", "from cpt_bench.sources import load_split; from cpt_bench.suite import load_suite; import cpt_bench.tasks as t; load_suite(Path(t.__path__[0], 'nano'))"),
    "reads another suite card": ("privilege", f"open({str(TINY / 'counting.yaml')!r}).read()"),
    "hides that it read a general probe": ("privilege", f"[copy(stage), __import__('contextlib').suppress(Exception).__enter__()]\n        try: open({str(TINY / 'knowledge.yaml')!r})\n        except Exception: pass"),
    "reads another task's data": ("privilege", "[p.read_text() for p in sorted((run / 'data').glob('lowvision*/train.jsonl'))]; copy(stage)"),
    "reads predictions through a command": ("privilege", "os.system(f'cat {run}/stages/0-base/predictions/science.jsonl'); copy(stage)"),
    "keeps more than it declared": ("privilege", "stage.memory.add(stage.samples[:3])"),
    "keeps more behind the store's back": ("privilege", "copy(stage); shutil.copy(Path(__import__('json').load(open(stage.document))['data'][0]), stage.memory.folder / 'science.jsonl')"),
    "never writes a checkpoint": ("no-checkpoint", "pass"),
    "writes NaN": ("not-finite", "import safetensors.torch as st; copy(stage); f = stage.output / 'model.safetensors'; w = st.load_file(f); w[sorted(w)[0]][...] = float('nan'); st.save_file(w, f, metadata={'format': 'pt'})"),
    "writes a pickle": ("pickle", "import torch; copy(stage); torch.save({}, stage.output / 'pytorch_model.bin')"),
    "writes half a file": ("broken", "copy(stage); f = stage.output / 'model.safetensors'; f.write_bytes(f.read_bytes()[:1000])"),
    "writes more weights than the base has": ("privilege", "import safetensors.torch as st, torch; copy(stage); st.save_file({'extra': torch.zeros(5)}, stage.output / 'more.safetensors')"),
    "hangs": ("timeout", "time.sleep(600)"),
    "hangs in a child": ("timeout", "os.system('sleep 600')"),
    "hangs in a session of its own": (
        "timeout",
        "import subprocess; p = subprocess.Popen(['sleep', '611'], start_new_session=True); p.wait()",
    ),
    "eats memory": ("memory", "x = [bytearray(1 << 24) for _ in range(200)]; time.sleep(60)"),
    "dies": ("killed", "os.kill(os.getpid(), 9)"),
    "exits": ("crash", "print('so long'); sys.stdout.flush(); os._exit(3)"),
    "raises": ("crash", "raise ValueError('no idea')"),
    "edits its policy": ("crash", "(stage.policy / 'model.safetensors').write_bytes(b'')"),
    "edits its samples": ("crash", "stage.samples[0].image_files[0].write_bytes(b'')"),
    "writes into another stage": ("privilege", "(run / 'stages/0-base/x').write_text('x')"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_trainer_that_breaks_the_contract_is_caught_named_and_recorded(
    what: str, trainer: Callable[..., str], tiny_model: Path, tmp_path: Path
) -> None:
    kind, body = HOSTILE[what]
    declared = "replay_samples_per_task=2" if "keeps more" in what else ""
    limits = Budget(seconds=3.0 if kind == "timeout" else 60.0)
    memory = 2000.0 if kind == "memory" else None
    spec = trainer(body, declared)
    plan = make_plan(tmp_path, tiny_model, spec, budget=limits, memory_mib=memory)
    folder = tmp_path / "run"
    (folder / "stages/0-base/predictions").mkdir(parents=True)
    (folder / "stages/0-base/predictions/science.jsonl").write_text("secret\n")
    (folder / "data/lowvision-0/").mkdir(parents=True)
    (folder / "data/lowvision-0/train.jsonl").write_text("secret\n")
    before = {p: p.read_bytes() for p in tiny_model.iterdir()}
    with pytest.raises(TrainerFault) as caught:
        train(plan, folder)
    assert caught.value.kind == kind, caught.value
    if "sleep', '611" in body:
        import psutil

        assert not [
            p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "611"]
        ]
    row = read_jsonl(folder / "failures.jsonl")[-1]
    assert row["kind"] == kind and row["stage"] == 1 and row["task"] == "science"
    assert "\n" not in row["message"]
    assert not (folder / "stages/1-science/checkpoint").exists()
    assert {p: p.read_bytes() for p in tiny_model.iterdir()} == before
    assert (folder / "stages/0-base/predictions/science.jsonl").read_text() == "secret\n"


def test_a_good_trainer_gets_what_the_contract_says(
    trainer: Callable[..., str], tiny_model: Path, tmp_path: Path
) -> None:
    body = """
        copy(stage)
        import safetensors.torch as st
        f = stage.output / 'model.safetensors'
        w = st.load_file(f); w[sorted(w)[0]] += stage.index; st.save_file(w, f, metadata={'format': 'pt'})
        assert len(stage.samples) == 4 and {s.task for s in stage.samples} == {stage.task}
        assert len(stage.earlier) == stage.index and stage.earlier[-1] == stage.policy
        assert all((e / 'model.safetensors').stat().st_size > 1000 for e in stage.earlier)
        assert stage.memory.tasks() == ['science', 'lowvision', 'counting'][:stage.index - 1] or sorted(['science', 'lowvision', 'counting'][:stage.index - 1])
        old = stage.memory.samples()
        assert all(stage.reward(s, s.target).total == 1.0 for s in [*stage.samples, *old])
        assert all(s.images == s.images and s.images[0][:2] == b'P6' for s in old if s.image_files)
        stage.memory.add(stage.samples[:2])
        notes = stage.state / 'notes'
        notes.write_text((notes.read_text() if notes.exists() else '') + stage.task + ' ')
        stage.log({'step': 1, 'steps': 1, 'samples': 4, 'kept': len(old)})
"""
    spec = trainer(body.strip(), "replay_samples_per_task=2, earlier_checkpoints=True")
    plan = make_plan(tmp_path, tiny_model, spec)
    events: list[Any] = []
    left = train(plan, tmp_path / "run", (1, 2, 3), events)
    paths = RunFolder(tmp_path / "run", plan.suite.sequence)
    assert (paths.state(3) / "notes").read_text() == "science lowvision counting "
    assert [e["kept"] for e in events if "kept" in e] == [0, 2, 4]
    facts = Ledger(paths.root).record("stage-3/train")["facts"]
    assert facts["isolation"] in ("namespace", "audit hook") and facts["samples"] == 4
    assert facts["peak_memory_mib"] > 0 and facts["wall_seconds"] > 0 and facts["gpu_seconds"] == 0
    assert len(facts["frame"]) == 64 and left[3].frame == facts["frame"]
    assert not paths.work(3).exists()
    # State and memory are part of what a stage depends on: a changed one is not taken for the same.
    (paths.state(1) / "notes").write_text("other")
    with pytest.raises(CptBenchError, match="was changed or removed after step stage-1/train"):
        train(plan, tmp_path / "run")


def test_a_joint_trainer_sees_every_task_once(
    trainer: Callable[..., str], tiny_model: Path, tmp_path: Path
) -> None:
    body = "copy(stage); tasks = [s.task for s in stage.samples]; assert stage.task == 'joint' and {t: tasks.count(t) for t in tasks} == dict(science=4, lowvision=4, counting=4)"
    plan = make_plan(tmp_path, tiny_model, trainer(body, "joint=True"))
    assert plan.stages() == [0, 3]
    train(plan, tmp_path / "run", (3,))


CLIENT = """
import json, sys, urllib.request, shutil, os, pathlib
stage = json.load(open(sys.argv[1]))
rows = [json.loads(line) for line in open(stage["data"][0])]
asked = [{"id": r["id"], "reply": r["target"]} for r in rows] + [{"id": rows[0]["id"], "reply": "?"}]
post = lambda body: urllib.request.Request(stage["reward_url"], json.dumps(body).encode())
got = json.load(urllib.request.urlopen(post(asked)))
assert [g["total"] for g in got] == [1.0] * len(rows) + [0.0], got
try:
    urllib.request.urlopen(post({"id": "nobody", "reply": ""}))
except urllib.error.HTTPError as error:
    assert error.code == 400
for name in rows[0]["images"]:
    assert pathlib.Path(stage["data"][0]).with_name("images").joinpath(pathlib.Path(name).name).exists()
with open(stage["log"], "a") as log:
    log.write(json.dumps({"step": 1, "steps": 1, "loss": 0.5, "samples": 4}) + "\\n")
print("hello from", os.environ["CPTBENCH_STAGE"] == sys.argv[1], flush=True)
shutil.copytree(stage["policy"], sys.argv[2], dirs_exist_ok=True)
"""


def test_a_command_gets_rewards_and_is_heard(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT)
    spec = f"cmd:{sys.executable} {tmp_path}/client.py {{stage}} {{output}}"
    events: list[Any] = []
    plan = make_plan(tmp_path, tiny_model, spec)
    train(plan, tmp_path / "run", events=events)
    paths = RunFolder(tmp_path / "run", plan.suite.sequence)
    assert {"kind": "output", "line": "hello from True", "stage": 1} in events
    assert read_jsonl(paths.train_log(1)) == [{"step": 1, "steps": 1, "loss": 0.5, "samples": 4}]
    assert "hello from True" in paths.log(1, "train").read_text()


def test_a_check_gives_a_stage_the_time_that_is_asked_for(tmp_path: Path) -> None:
    """A framework that takes a minute to import may take longer than the check's own two minutes."""
    done = here(tmp_path, "trainer", "check", "cmd:sleep 30", "--stage-timeout", 1)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("FAIL  ends a stage of 24 samples within 1 s: stage 1 (science)")
    assert line.endswith("Give a longer --stage-timeout, or look where it hangs")


def test_a_command_that_nobody_watches_is_recorded_as_such(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    plan = make_plan(tmp_path, tiny_model, f"cmd:cp -r {tiny_model}/. {{output}}")
    card, data = plan.suite.card("science"), tmp_path / "data"
    write_split(card, plan.suite.protocol, 4, data)
    job = lay_out(plan, RunFolder(tmp_path / "run", ("science",)), 1, 0, [data], [tiny_model])
    monkeypatch.setattr(training, "_watch", None)  # as where there are no namespaces
    monkeypatch.setattr(training.isolation, "watch_opens", lambda view, tell: None)
    assert training.train(lambda event: None, job)["isolation"] == "none"


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        ("sh -c 'echo one; echo two; exit 7'", "crash", "exited with 7; its last output: one | two"),
        ("sh -c 'kill -9 $$'", "killed", "killed by signal 9"),
        ("sh -c 'exec sleep 600'", "timeout", "ended after 2 s"),
        ("sh -c 'cat {stage} >/dev/null; cat ../*/run/stages/0-base/predictions/science.jsonl'", "privilege", "science.jsonl"),
    ],
)  # fmt: skip
def test_a_command_that_fails_is_named(
    command: str, kind: str, said: str, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/stages/0-base/predictions").mkdir(parents=True)
    (tmp_path / "run/stages/0-base/predictions/science.jsonl").write_text("secret\n")
    plan = make_plan(tmp_path, tiny_model, f"cmd:{command}", budget=Budget(seconds=2.0))
    with pytest.raises(TrainerFault, match=r".") as caught:
        train(plan, tmp_path / "run")
    assert caught.value.kind == kind and said in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [("cmd:", "no command"), ("cmd:'", "not a command line"), ("cmd:no-such-program x", "'no-such-program'")],
)  # fmt: skip
def test_a_command_line_is_checked(spec: str, complaint: str) -> None:
    with pytest.raises(CptBenchError, match=complaint):
        trainer_of(spec)


def test_gpu_time_is_counted_from_what_the_driver_says(monkeypatch: Any, tmp_path: Path) -> None:
    from cpt_bench.environment import gpus_held

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU-a, 11\\nGPU-b, 11\\nGPU-b, 12\\nGPU-c, 99\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpus_held({11, 12}) == 2 and gpus_held({99}) == 1 and gpus_held({1}) == 0


def test_the_published_schema_is_the_one_in_force() -> None:
    from cpt_bench.stage.document import schema

    published = json.loads((ROOT / "docs/stage.schema.json").read_text())
    assert published == json.loads(json.dumps(schema()))


def test_a_folder_that_is_moved_while_the_view_is_made_is_no_fault(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """The next task's split is prepared meanwhile, under a name that does not last."""
    from cpt_bench.stage import isolation

    (tmp_path / "data/.partial/images").mkdir(parents=True)
    (tmp_path / "data/kept").mkdir()
    listed = isolation.os.scandir

    def moved(here: Path) -> Any:
        if here.name == ".partial":
            (tmp_path / "data/.partial").rename(tmp_path / "data/whole")
        return listed(here)

    monkeypatch.setattr(isolation.os, "scandir", moved)
    folders, _ = isolation._names(tmp_path / "data", [])
    assert Path("kept") in folders
