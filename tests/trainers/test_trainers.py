"""SFT and RFT train, are reproducible, and compute the advantages their papers define."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.models.checkpoint import load_model, weights_digest
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT
from tests.support.stages import make_stage

RL = {"learning_rate": 1e-3, "max_steps": 2, "prompts_per_step": 2, "rollouts": 4, "device": "cpu"}


def trained(trainer: Any, policy: Path, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    stage = make_stage("science", policy, folder, rows)
    trainer.train(stage)
    load_model(stage.output, device="cpu", attention="eager")  # loadable, nothing missing
    return weights_digest(stage.output), rows


def test_sft_changes_the_weights_and_lowers_the_loss(tiny_model: Path, tmp_path: Path) -> None:
    config = SFT.Config(learning_rate=3e-3, max_steps=12, batch_size=8, device="cpu")
    digest, rows = trained(SFT(config), tiny_model, tmp_path)
    assert digest != weights_digest(tiny_model)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_sft_weighs_tokens_alike_however_a_batch_is_cut(tiny_model: Path, tmp_path: Path) -> None:
    """One batch of four, or four of one added up: answers of unlike length, the same step."""
    from dataclasses import replace

    def first_step(batch: int, accumulation: int) -> dict[str, Any]:
        torch.set_num_threads(1)
        rows: list[dict[str, Any]] = []
        stage = make_stage("science", tiny_model, tmp_path / str(batch), rows)
        unlike = [
            replace(s, target=s.target * (1 + 3 * (i % 2))) for i, s in enumerate(stage.samples)
        ]
        config = SFT.Config(
            learning_rate=1e-3, max_steps=1, batch_size=batch, gradient_accumulation=accumulation,
            device="cpu",
        )  # fmt: skip
        SFT(config).train(replace(stage, samples=unlike))
        return rows[0]

    whole, parts = first_step(4, 1), first_step(1, 4)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("name", ["sft", "grpo", "rloo", "remax"])
def test_the_same_seed_gives_the_same_weights(name: str, tiny_model: Path, tmp_path: Path) -> None:
    def once(folder: Path) -> str:
        if name == "sft":
            trainer: Any = SFT(
                SFT.Config(learning_rate=1e-3, max_steps=2, batch_size=4, device="cpu")
            )
        else:
            trainer = RFT(RFT.Config(**RL, algorithm=name))
        return trained(trainer, tiny_model, folder)[0]

    assert once(tmp_path / "a") == once(tmp_path / "b")


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "remax"])
def test_advantages(algorithm: str, tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Rewards are set by hand; the advantages that reach the loss are computed by hand."""
    from dataclasses import replace

    from trl import GRPOTrainer, RLOOTrainer

    from cpt_bench.trainer import RewardParts

    owner = RLOOTrainer if algorithm == "rloo" else GRPOTrainer
    batches: list[Any] = []
    inner = owner._compute_loss

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        batches.append(inputs["advantages"].detach().clone())
        return inner(self, model, inputs)

    monkeypatch.setattr(owner, "_compute_loss", spy)
    given: list[float] = []
    values = [1.0, 0.1, 0.0, 0.4, 0.1, 0.1, 1.0, 0.0]
    greedy = [0.3, 0.3, 0.3, 0.3, 0.6, 0.6, 0.6, 0.6]

    def reward(sample: Any, reply: str) -> RewardParts:
        total = (values + greedy)[len(given) % 16]
        given.append(total)
        return RewardParts(total, total, True)

    stage = replace(make_stage("science", tiny_model, tmp_path), reward=reward)
    RFT(RFT.Config(**{**RL, "max_steps": 1}, algorithm=algorithm)).train(stage)
    groups = torch.tensor(values).view(2, 4)
    if algorithm == "grpo":
        expected = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    elif algorithm == "rloo":
        expected = groups - (groups.sum(1, keepdim=True) - groups) / 3
    else:
        expected = groups - torch.tensor(greedy).view(2, 4)
    assert len(given) == (16 if algorithm == "remax" else 8)
    # TRL shuffles a batch before it is split; each group's advantages are compared as a set.
    got = torch.cat(batches).flatten().sort().values
    assert torch.allclose(got, expected.flatten().sort().values, atol=1e-4)


def test_what_a_loss_is_made_of(tiny_model: Path, tmp_path: Path) -> None:
    stage = make_stage("science", tiny_model, tmp_path)
    plain = RFT(RFT.Config(**RL)).arguments(stage, tmp_path)
    assert (plain.loss_type, plain.delta) == ("grpo", None)
    other = RFT(RFT.Config(**RL, average="token", clip_dual=3.0)).arguments(stage, tmp_path)
    assert (other.loss_type, other.delta) == ("dapo", 3.0)


@pytest.mark.parametrize(
    ("settings", "weighs"),
    [
        ({}, True),
        ({"top_p": 0.9}, True),
        ({"top_p": 0.9, "temperature": 0.7}, False),
        ({"top_p": 0.9, "vllm_mode": "server"}, False),
        ({"temperature": 0.7}, True),
        ({"vllm_mode": "server"}, True),
        ({"use_vllm": False, "top_p": 0.9, "temperature": 0.7}, True),
    ],
)
def test_replies_are_weighed_by_the_policy_s_probabilities_or_not_at_all(
    settings: dict[str, Any], weighs: bool, tiny_model: Path, tmp_path: Path
) -> None:
    """TRL divides by vLLM's probabilities, which may be those within the nucleus."""
    config = RFT.Config(**RL).model_copy(update={"use_vllm": True, **settings})
    found = RFT(config).arguments(make_stage("science", tiny_model, tmp_path), tmp_path)
    assert found.vllm_importance_sampling_correction is weighs


def test_settings_are_checked() -> None:
    from pydantic import ValidationError

    for bad in (
        {"rollouts": 1},
        {"algorithm": "rloo", "average": "token"},
        {"algorithm": "rloo", "clip_dual": 3.0},
        {"algorithm": "ppo"},
        {"use_vllm": True},
        {"learning_rat": 1.0},
    ):
        with pytest.raises(ValidationError):
            RFT.Config(**{**RL, **bad})
