"""One engine for all checkpoints of a run: the same bytes as a process for each, and as loud when it dies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.engines.choice import EngineChoice, choose
from cpt_bench.errors import CptBenchError
from cpt_bench.run.plan import Plan
from cpt_bench.run.sequencer import run
from cpt_bench.run.workers import Workers
from cpt_bench.stage.method import Asked, describe
from cpt_bench.suite import load_suite
from cpt_bench.worker.process import Worker
from tests.support.commands import Cli
from tests.support.places import TINY


def plan_of(model: Path, **changes: Any) -> Plan:
    settings = ("learning_rate=1e-3", "max_steps=2", "device=cpu")
    suite = load_suite(TINY)
    return Plan(
        suite_spec=str(TINY), suite=suite, method=describe(Asked("sft", "tiny", settings)), seed=0,
        limit=None, threads=1, overlap=True, keep="all", base=model,
    )._replace(**changes)  # fmt: skip


KEPT = EngineChoice(kept=True)


@pytest.fixture
def workers(monkeypatch: Any) -> list[tuple[str, Worker]]:
    """Every worker that a run started, with the name of its work."""
    made: list[tuple[str, Worker]] = []
    start = Workers.start

    def noted(self: Workers, work: Any, *args: Any, **kwargs: Any) -> Worker:
        worker = start(self, work, *args, **kwargs)
        made.append((work.__name__, worker))
        return worker

    monkeypatch.setattr(Workers, "start", noted)
    return made


def predictions(folder: Path) -> dict[str, bytes]:
    kinds = ("stages/*/predictions/*.jsonl", "stages/*/kl.jsonl", "stages/*/forced/*/*.jsonl")
    files = [file for kind in kinds for file in folder.glob(kind)]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_one_process_gives_the_bytes_of_many(
    finished: Path, tiny_model: Path, tmp_path: Path, workers: list[tuple[str, Worker]]
) -> None:
    """Also where each checkpoint but the last is dropped, and the folder is the other's."""
    folder = tmp_path / "kept"
    run(plan_of(tiny_model, engine=KEPT, keep="last"), folder, None, lambda event: None)
    names = [name for name, _ in workers]
    # The base's config.json is not the one that trainers write, but it means the same.
    assert names.count("evaluate_each") == 1 and names.count("evaluate") == 0
    assert all(not worker.process.is_alive() for _, worker in workers)
    assert predictions(folder) == predictions(finished)
    for name in ("matrix.json", "metrics.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    # Whether the engine was kept changes no key: the same command with none is a no-op.
    workers.clear()
    run(plan_of(tiny_model), folder, None, lambda event: None)
    assert not workers


COPY = """
import os, shutil
from pathlib import Path
from cpt_bench.trainer import Trainer

class Copy(Trainer):
    def train(self, stage):
        with open({place!r} + "/trained", "a") as log:
            print(os.environ.get("CUDA_VISIBLE_DEVICES"), file=log)
        shutil.copytree(stage.policy, stage.output, dirs_exist_ok=True)
"""

ENGINE = """
import os, signal
from cpt_bench.engines.hf import TransformersEngine

def note(what):
    with open({place!r} + "/answered", "a") as log:
        print(what, os.environ.get("CUDA_VISIBLE_DEVICES"), file=log)

class Noting(TransformersEngine):
    def __init__(self, place, *, batch_size=64):
        note("open")
        super().__init__(place, batch_size=batch_size)

    def swap(self, folder):
        note("swap")
        if os.path.exists({place!r} + "/die"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().swap(folder)

class Opening:
    def __init__(self, place, *, batch_size=64):
        self.inner = Noting(place, batch_size=batch_size)
        self.weights, self.generate = self.inner.weights, self.inner.generate
"""


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    """A run whose trainer and engine are files that note which GPUs they see."""
    (tmp_path / "copy.py").write_text(COPY.format(place=str(tmp_path)))
    (tmp_path / "engine.py").write_text(ENGINE.format(place=str(tmp_path)))
    return ["run", "--trainer", "./copy.py:Copy", "--suite", str(TINY), "--no-share"]


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def test_on_two_gpus_each_has_one_and_the_engine_stays(
    mine: list[str], tiny_model: Path, tmp_path: Path, cli: Cli, monkeypatch: Any
) -> None:
    """As far as a machine without a GPU can tell: who is told to look at which."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    chosen = ["--engine", "./engine.py:Noting", "--engine-set", "batch_size=8"]
    command = [*mine, "--base", tiny_model, "--out", "run"]
    done = cli(*command, *chosen)
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "trained") == ["4"] * 3
    assert lines(tmp_path / "answered") == ["open 7", *["swap 7"] * 3]
    assert "nothing to do" in cli(*command, *chosen).stdout
    told = json.loads((tmp_path / "run/run.json").read_text())["engine"]
    assert told["settings"] == {"batch_size": 8} and told["origin"]["spec"] == chosen[1]
    for other in ([], [*chosen[:3], "batch_size=9"]):
        done = cli(*command, *other)
        assert done.returncode == 2 and "holds another run: its engine is" in done.stderr
    done = cli(*command, *chosen, "--launch", "torchrun --nproc_per_node 2", "--overlap")
    assert done.returncode == 2 and "evaluation would share a GPU with training" in done.stderr


def test_stages_trained_elsewhere_are_answered_by_one_engine(
    mine: list[str], tiny_model: Path, tmp_path: Path, cli: Cli, monkeypatch: Any
) -> None:
    assert cli(*mine, "--base", tiny_model, "--out", "run").returncode == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    command = ["eval", "--stages", "run/stages/[1-9]*", *mine[3:], "--base", tiny_model]
    chosen = ["--engine", "./engine.py:Noting", "--engine-set", "batch_size=8"]
    done = cli(*command, *chosen, "--out", "again")
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "answered") == ["open 7", *["swap 7"] * 3]
    ours, theirs = (
        json.loads((tmp_path / d / "matrix.json").read_text()) for d in ("again", "run")
    )
    assert ours["accuracy"] == theirs["accuracy"]
    told = json.loads((tmp_path / "again/run.json").read_text())["engine"]
    assert told["settings"] == {"batch_size": 8}
    done = cli("eval", "--endpoint", "http://127.0.0.1:1/v1", "--model", "m", *chosen)
    assert done.returncode == 2 and "the server answers" in done.stderr


def test_on_one_gpu_evaluation_waits_and_its_engine_leaves(
    mine: list[str], tiny_model: Path, tmp_path: Path, cli: Cli, monkeypatch: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    command = [*mine, "--base", tiny_model, "--engine", "./engine.py:Noting"]
    done = cli(*command, "--overlap")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "--overlap: evaluation would share a GPU with training: 1 visible" in done.stderr
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "trained") == ["4"] * 3
    assert lines(tmp_path / "answered") == ["open 4"] * 4


def test_an_engine_without_swap_is_opened_for_each(
    mine: list[str], tiny_model: Path, tmp_path: Path, cli: Cli, monkeypatch: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    done = cli(*mine, "--base", tiny_model, "--engine", "./engine.py:Opening")
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "answered") == ["open 7"] * 4


def test_a_kept_process_that_is_killed(
    mine: list[str], tiny_model: Path, tmp_path: Path, cli: Cli, monkeypatch: Any
) -> None:
    """One line, status 75, and the same command goes on to the same numbers."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    command = [*mine, "--base", tiny_model, "--engine", "./engine.py:Noting"]
    (tmp_path / "die").touch()
    done = cli(*command, "--out", "run")
    assert done.returncode == 75, done.stderr
    assert "stage 1, evaluation: the process was killed by SIGKILL" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    (tmp_path / "die").unlink()
    (tmp_path / "answered").unlink()
    assert cli(*command, "--out", "run").returncode == 0
    assert lines(tmp_path / "answered") == ["open 7", "swap 7", "swap 7"]  # the base row was kept
    assert cli(*command, "--out", "whole").returncode == 0
    for name in ("matrix.json", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_keys_of_runs_with_the_default_engine(tiny_model: Path, finished: Path) -> None:
    """They say nothing of an engine that nobody chose."""
    plan = plan_of(tiny_model)
    assert "engine" not in plan.identity()
    inputs = json.loads((finished / "ledger/stage-1.evaluate.science.json").read_text())["inputs"]
    assert inputs["engine"] == "transformers" and inputs.keys() == {
        "weights", "frame", "card", "protocol", "engine", "limit", "threads", "versions", "code",
    }  # fmt: skip


def test_a_setting_by_hand(tmp_path: Path) -> None:
    assert choose("transformers", ()) == EngineChoice() and EngineChoice().identity() == {}
    chosen = choose("transformers", ("batch_size=8", "dtype=float32"))
    assert chosen.identity() == {
        "name": "transformers", "settings": {"batch_size": 8, "dtype": "float32"},
    }  # fmt: skip
    assert json.dumps(chosen.identity())
    (tmp_path / "mine.py").write_text("class Mine:\n    def __init__(self, place, *, hot=1): ...\n")
    mine = choose(f"{tmp_path}/mine.py:Mine", ("hot=2",))
    assert not mine.swaps and mine.identity()["origin"]["sha256"]
    for name, setting, complaint in (
        ("transformers", "batchsize=8", "no setting 'batchsize'. Did you mean 'batch_size'"),
        ("transformers", "batch_size", "is not key=value"),
        ("vlm", "memory=1", "Did you mean 'vllm'"),
        ("endpoint", "model=m", "cptbench eval --endpoint URL"),
    ):
        with pytest.raises(CptBenchError, match=complaint):
            choose(name, (setting,))
