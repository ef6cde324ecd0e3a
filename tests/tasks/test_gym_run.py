"""Runs of gym's variants on two-layer models with random weights: the code that a 4B model goes through."""

from __future__ import annotations

import json
import shutil
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
from cpt_bench.suite import open_suite
from cpt_bench.tasks.gym import FOLDER
from cpt_bench.trainer import TrainSample
from cpt_bench.trainers.rows import user_turn
from tests.support.commands import Cli
from tests.support.families import qwen3_text

TASKS = ["crg-complex-arithmetic", "crg-simple-equations"]
RL = [
    "learning_rate=1e-3",
    "max_steps=1",
    "prompts_per_step=2",
    "rollouts=2",
    "device=cpu",
    "kl=0.001",
]


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
