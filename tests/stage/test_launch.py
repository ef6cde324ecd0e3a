"""Launchers' command lines, and adapters that leave whole checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.stage import launch
from cpt_bench.stage.launch import command


def test_torchrun_gets_a_port_of_its_own() -> None:
    assert command("torchrun --nproc_per_node 8", "stage.json", "sft") == [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "8",
        "-m", "cpt_bench.stage.rank", "stage.json", "sft",
    ]  # fmt: skip
    several = command("torchrun --nnodes 2 --rdzv_endpoint host:1 --nproc_per_node 8")
    assert "--standalone" not in several


def test_accelerate() -> None:
    assert command("accelerate launch --num_processes 8 --use_deepspeed", "s", "rft") == [
        sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "8",
        "--use_deepspeed", "-m", "cpt_bench.stage.rank", "s", "rft",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("launch", "complaint"),
    [
        ("accelerate launch --cpu --num_processes 2", "runs one process"),
        ("accelerate config", "is not accelerate launch"),
        ("mpirun -n 2", "neither torchrun nor accelerate"),
        ("", "neither torchrun nor accelerate"),
    ],
)
def test_what_would_not_do_what_it_says(launch: str, complaint: str) -> None:
    with pytest.raises(CptBenchError, match=complaint):
        command(launch)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("raise SystemExit(3)", "crash", "torchrun x exited with 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed", "torchrun x exited with -9"),
        (
            "open('launch.json', 'w').write('{\"error\": \"too much\", \"kind\": \"privilege\"}')",
            "privilege", "too much",
        ),
    ],
)  # fmt: skip
def test_a_launch_that_fails_is_a_trainer_s_fault(
    body: str, kind: str, said: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """Only those have a row in ``failures.jsonl``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "command", lambda *words: [sys.executable, "-c", body])
    stage: Any = SimpleNamespace(document=tmp_path / "stage.json", index=1, task="science")
    with pytest.raises(TrainerFault, match=said) as caught:
        launch.train("torchrun x", "sft", stage, 1)
    assert caught.value.kind == kind


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "rft"])
def test_adapters_are_merged_into_whole_checkpoints(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    """The same tensors as before, those of linear layers changed, the rest untouched."""
    pytest.importorskip("torch")
    from dataclasses import replace

    from safetensors.torch import load_file

    from cpt_bench.models.checkpoint import load_model, load_processor
    from cpt_bench.trainer import RewardParts
    from cpt_bench.trainers.rft import RFT
    from cpt_bench.trainers.sft import SFT
    from tests.support.stages import make_stage

    common: dict[str, Any] = {
        "learning_rate": 1e-2,
        "max_steps": 2,
        "device": "cpu",
        "lora_rank": 4,
    }
    stage = make_stage("science", tiny_model, tmp_path)
    stage = replace(stage, reward=lambda s, r: RewardParts(len(r) % 7 / 7, 0.0, False))
    if name == "sft":
        SFT(SFT.Config(**common, batch_size=4, max_pixels=2048)).train(stage)
    else:
        RFT(RFT.Config(**common, prompts_per_step=2, rollouts=2)).train(stage)
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(stage.output / "model.safetensors")
    assert after.keys() == before.keys()
    changed = {n for n in before if not before[n].equal(after[n])}
    assert changed and all("norm" not in n and "embed" not in n for n in changed)
    assert any("mlp.down_proj" in n for n in changed)
    load_model(stage.output, device="cpu", attention="eager")
    sizes = [dict(load_processor(f).image_processor.size) for f in (tiny_model, stage.output)]
    assert sizes[0] == sizes[1], "training's limits of pixels are not evaluation's"
