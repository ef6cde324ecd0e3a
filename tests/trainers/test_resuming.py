"""A stage that is killed inside goes on from its last saved state: the same weights, bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

from cpt_bench.files import read_json, read_jsonl
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.trainer import RewardParts, Stage
from cpt_bench.trainers.resuming import WHOLE, saved
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.selfsft import SelfSFT
from cpt_bench.trainers.sft import SFT
from tests.support.commands import Cli
from tests.support.places import ROOT, TINY
from tests.support.stages import make_stage

STEPS, EVERY = 12, 2
SUP = {
    "learning_rate": 1e-3,
    "max_steps": STEPS,
    "batch_size": 4,
    "device": "cpu",
    "warmup_steps": 3,
}
RL = {"learning_rate": 1e-3, "max_steps": 6, "prompts_per_step": 2, "rollouts": 2, "device": "cpu"}
METHODS: dict[str, tuple[Any, int, int]] = {
    # How to make it, how many steps it has, and after how many of them it is killed.
    "sft": (lambda: SFT(SFT.Config(**SUP, gradient_accumulation=2)), STEPS, 10),
    "adapters": (lambda: SFT(SFT.Config(**SUP, lora_rank=4)), STEPS, 2),
    "grpo": (lambda: RFT(RFT.Config(**RL, updates_per_generation=2, kl=0.1)), 6, 3),
    "rloo": (lambda: RFT(RFT.Config(**RL, algorithm="rloo")), 6, 2),
}


class Killed(BaseException):
    pass


def by_length(sample: Any, reply: str) -> RewardParts:
    """A reward that differs between the replies of a model that has learned nothing."""
    return RewardParts(len(set(reply)) / 20, 0.0, False)


def trained(
    method: Any, policy: Path, folder: Path, kills: list[int], **changes: Any
) -> tuple[str, Any]:
    """Train a stage that dies as soon as it has logged each of the steps ``kills``, once each."""
    torch.set_num_threads(1)
    left = list(kills)
    while True:
        rows: list[dict[str, Any]] = []
        stage = make_stage("science", policy, folder, rows)

        def log(row: dict[str, Any], rows: Any = rows, stage: Stage = stage) -> None:
            rows.append(row)
            if left and row["step"] == left[0] and len(rows) == row["step"]:
                left.pop(0)
                raise Killed

        resume = folder / "resume"
        stage = replace(
            stage,
            reward=by_length,
            **{"log": log, "save_every": EVERY, "resume": resume, **changes},
        )
        try:
            method().train(stage)
        except Killed:
            continue
        assert not left
        return weights_digest(stage.output), [without_time(row) for row in rows]


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    """What a step computed: each process checks itself again, and takes its own time."""
    left_out = ("second", "time", "self_check")
    return {key: value for key, value in row.items() if not any(w in key for w in left_out)}


@pytest.mark.parametrize("name", METHODS)
def test_the_same_weights_as_without_a_kill(name: str, tiny_model: Path, tmp_path: Path) -> None:
    method, last, times = METHODS[name]
    whole = trained(method, tiny_model, tmp_path / "whole", [], save_every=None)
    points = sorted(random.Random(name).sample(range(1, last + 1), times))
    killed = trained(method, tiny_model, tmp_path / "killed", points)
    assert killed[0] == whole[0], f"killed after steps {points}"
    assert killed[1] == whole[1], f"killed after steps {points}"
    assert whole[0] != weights_digest(tiny_model)
    assert [row["step"] for row in killed[1]] == list(range(1, last + 1))


def test_a_state_that_was_cut_off_is_not_gone_on_from(tiny_model: Path, tmp_path: Path) -> None:
    whole = trained(METHODS["sft"][0], tiny_model, tmp_path / "whole", [], save_every=None)
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        trained_once(METHODS["sft"][0], tiny_model, folder, 9)
    stage = replace(
        make_stage("science", tiny_model, folder), resume=folder / "resume", save_every=EVERY
    )
    place = saved(stage)
    assert place is not None and place.name == "checkpoint-8"
    (place / "model.safetensors").write_bytes(b"half")
    (place / WHOLE).unlink()
    assert saved(stage) is None and not place.exists()
    assert trained(METHODS["sft"][0], tiny_model, folder, []) == whole


def trained_once(method: Any, policy: Path, folder: Path, at: int) -> None:
    torch.set_num_threads(1)

    def log(row: dict[str, Any]) -> None:
        if row["step"] == at:
            raise Killed

    stage = make_stage("science", policy, folder)
    method().train(replace(stage, log=log, save_every=EVERY, resume=folder / "resume"))


def test_a_method_whose_state_is_not_saved_begins_anew_and_says_so(
    tiny_model: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    stage = make_stage("science", tiny_model, tmp_path)
    stage = replace(stage, tell=lines.append, save_every=1, resume=tmp_path / "resume")
    SelfSFT(SelfSFT.Config(**{**SUP, "max_steps": 2}, rollouts=2)).train(stage)
    assert any("if interrupted, this method starts again" in line for line in lines)
    assert not (tmp_path / "resume").exists()


DIES = '''
import os, signal
from pathlib import Path
from cpt_bench.trainers.sft import SFT

class Dies(SFT):
    """SFT whose process is killed once, after step 5."""

    def before_first_step(self, trainer, stage, log):
        told = log.again
        def again(row):
            told(row)
            mark = Path({mark!r})
            if row["step"] == 5 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        log.again = again
'''


def one_task(folder: Path) -> Path:
    """The tiny suite with one task and nothing general."""
    for name in ("suite.yaml", "science.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(TINY / name, folder / name)
    declared = (folder / "suite.yaml").read_text()
    declared = declared.replace("[science, lowvision, counting]", "[science]")
    (folder / "suite.yaml").write_text(declared.replace("[knowledge]", "[]"))
    return folder


def test_a_run_whose_stage_is_killed_has_the_same_matrix(
    cli: Cli, tiny_model: Path, tmp_path: Path
) -> None:
    killed_and_whole(cli, tiny_model, tmp_path)


@pytest.mark.skipif("CPTBENCH_LONG" not in os.environ, reason="six processes start: a minute")
def test_so_has_one_of_two_processes(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    killed_and_whole(cli, tiny_model, tmp_path, "--launch", "torchrun --nproc_per_node 2")


@pytest.mark.skipif("CPTBENCH_LONG" not in os.environ, reason="six processes start: a minute")
def test_so_has_a_model_that_is_split_by_fsdp(tiny_model: Path, tmp_path: Path) -> None:
    """Over two processes on a CPU, which accelerate has to be made to do: see the script."""

    def drive(name: str, kill: int) -> int:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                   "-m", "tests.support.drive_fsdp", tmp_path / name, tiny_model, kill]  # fmt: skip
        done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
        (tmp_path / f"{name}.log").write_text(done.stderr)
        return done.returncode

    assert drive("whole", 0) == 0, (tmp_path / "whole.log").read_text()[-3000:]
    assert drive("killed", 5) != 0
    assert [p.name for p in tmp_path.glob("killed/resume/checkpoint-*")] == ["checkpoint-4"]
    assert drive("killed", 0) == 0, (tmp_path / "killed.log").read_text()[-3000:]
    whole, killed = (read_json(tmp_path / name / "split.json") for name in ("whole", "killed"))
    assert 0 < whole["mine"] < 0.6 * whole["whole"], "each process has its share"
    assert [*map(without_time, killed["rows"])] == [*map(without_time, whole["rows"])]
    first, second = (weights_digest(tmp_path / name / "0/out") for name in ("whole", "killed"))
    assert first == second != weights_digest(tiny_model)


def test_a_sweep_s_run_goes_on_inside_its_stage(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    """Its worker is lost, it is started again, and continues from the state that was saved."""
    mark = tmp_path / "mark"
    (tmp_path / "dies.py").write_text(DIES.format(mark=str(mark)))
    text = SWEEP.format(suite=one_task(tmp_path / "one"), base=tiny_model)
    (tmp_path / "killed.yaml").write_text(text + "save_every: 3\n")
    (tmp_path / "whole.yaml").write_text(text)
    killed = cli("sweep", "killed.yaml")
    assert killed.returncode == 0 and mark.exists(), killed.stderr
    assert "its worker was lost" in killed.stderr
    assert cli("sweep", "whole.yaml").returncode == 0
    one, two = (
        read_json(next(tmp_path.glob(f"runs/{name}/*/ledger/stage-1.train.json")))
        for name in ("killed", "whole")
    )
    assert one["facts"]["weights"] == two["facts"]["weights"] and one["key"] == two["key"]
    (folder,) = tmp_path.glob("runs/killed/*/stages/1-science")
    assert [row["step"] for row in read_jsonl(folder / "train.jsonl")] == list(range(1, 8))
    assert "goes on after 3 steps" in "".join(p.read_text() for p in folder.rglob("*.log"))


SWEEP = """
suite: {suite}
base: {base}
limit: 8
runs:
  - trainers: [./dies.py:Dies]
    set: {{learning_rate: 1e-3, max_steps: 7, device: cpu, batch_size: 4}}
"""


def killed_and_whole(cli: Cli, tiny_model: Path, tmp_path: Path, *more: str) -> None:
    """A run whose training process is killed, and goes on, against one that is left alone."""
    mark = tmp_path / "mark"
    (tmp_path / "dies.py").write_text(DIES.format(mark=str(mark)))
    words = ["run", "--trainer", "./dies.py:Dies", "--suite", one_task(tmp_path / "one"), "--base", tiny_model,
             "--no-share", "--set", "learning_rate=1e-3", "--set", "max_steps=7", "--set", "device=cpu",
             "--set", "batch_size=4", "--limit", "8", *more]  # fmt: skip
    first = cli(*words, "--out", "killed", "--save-every", "3")
    assert first.returncode in (2, 75) and mark.exists(), first.stderr
    assert [p.name for p in tmp_path.glob("killed/stages/*/work/resume/checkpoint-*")] == [
        "checkpoint-3"
    ]
    again = cli(*words, "--out", "killed", "--save-every", "3")
    assert again.returncode == 0, again.stderr
    whole = cli(*words, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    one, two = (
        read_json(tmp_path / name / "ledger/stage-1.train.json") for name in ("killed", "whole")
    )
    assert one["facts"]["weights"] == two["facts"]["weights"] and one["key"] == two["key"]
    assert read_json(tmp_path / "killed/matrix.json") == read_json(tmp_path / "whole/matrix.json")
    (log,) = tmp_path.glob("killed/stages/*/train.jsonl")
    assert [row["step"] for row in read_jsonl(log)] == list(range(1, 8))
    assert not list(tmp_path.glob("killed/stages/*/work"))
