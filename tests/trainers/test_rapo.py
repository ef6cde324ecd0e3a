"""RaPO: drift, retention reward and the scale of its advantages, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.trainer import RewardParts
from cpt_bench.trainers import rapo
from cpt_bench.trainers.rapo import RaPO
from tests.support.stages import RL, make_stage


def test_rapo_s_equations() -> None:
    ours = torch.tensor([[-1.0, -2.0, 9.9], [-1.0, -1.0, -1.0]])
    anchor = torch.tensor([[-1.5, -2.3, 0.0], [-0.5, -0.5, -3.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = rapo.drift(ours, anchor, mask)
    assert found.tolist() == pytest.approx([(0.5 + 0.3) / 2, (-0.5 - 0.5 + 2.0) / 3])
    assert rapo.drift(anchor, ours, mask).tolist() == [0.0, 0.0]  # cut off after the mean
    assert rapo.retention_reward(found, 20.0).tolist() == pytest.approx(
        [math.exp(-8.0), math.exp(-20 / 3)]
    )


def test_rapo_s_scale_lasts_across_batches_and_tasks(tmp_path: Path) -> None:
    file = tmp_path / "rapo.json"
    flat, first = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    second = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    scale = rapo.Scale(file, 0.9)
    assert scale.advantages(flat).abs().max() == 0 and scale.sigma is None
    sigma = float(first.std())
    by_hand = torch.tensor([[0.5, -0.5], [0.45, -0.45]]) / (sigma + 1e-6)
    assert torch.allclose(scale.advantages(first), by_hand)
    scale.save()
    later = rapo.Scale(file, 0.9)  # the next task goes on from it
    sigma = 0.9 * sigma + 0.1 * float(second.std())
    by_hand = torch.tensor([[0.0, 0.0], [0.5, -0.5]]) / (sigma + 1e-6)
    assert torch.allclose(later.advantages(second), by_hand)
    assert later.sigma == pytest.approx(sigma)


def test_rapo_s_advantages_reach_the_loss(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Stage 1 by hand from the rewards; in stage 2 the retention reward is there."""
    from trl import GRPOTrainer

    batches: list[Any] = []
    inner = GRPOTrainer._compute_loss

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        batches.append(inputs["advantages"].detach().clone())
        return inner(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", spy)
    values = [1.0, 0.1, 0.0, 0.4, 0.1, 0.1, 1.0, 0.0]
    given: list[float] = []

    def reward(s: Any, reply: str) -> RewardParts:
        given.append(values[len(given) % 8])
        return RewardParts(given[-1], 0.0, True)

    torch.set_num_threads(1)
    stage = replace(make_stage("science", tiny_model, tmp_path / "1"), reward=reward)
    RaPO(RaPO.Config(**RL)).train(stage)
    groups = torch.tensor(values).view(2, 4)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std() + 1e-6)
    got = torch.cat(batches).flatten().sort().values
    assert torch.allclose(got, expected.flatten().sort().values, atol=1e-4)
    rows: list[dict[str, Any]] = []
    second = make_stage("counting", stage.output, tmp_path / "2", rows, index=2, state=stage.state)
    RaPO(RaPO.Config(**{**RL, "max_steps": 2})).train(replace(second, reward=reward))
    assert rows[0]["drift"] == pytest.approx(0, abs=1e-5)  # the first rollouts are the anchor's
    assert rows[0]["retention_reward"] == pytest.approx(1, abs=1e-3)
    assert rows[1]["drift"] > 0 and rows[1]["reward_scale"] == pytest.approx(
        float(groups.std()), rel=0.01
    )
