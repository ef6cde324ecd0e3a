"""Before the first RL step: every way in which rollouts and trainer could disagree stops the stage.

Rollouts of the real vLLM are compared in tests/peers/test_rft.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.errors import CptBenchError
from cpt_bench.trainers.selfcheck import (
    Reference,
    Rollout,
    check,
    disagreements,
    transformers_rollouts,
)
from tests.support.stages import make_stage

IMAGE = 7


def test_what_counts_as_a_disagreement() -> None:
    rollout = Rollout([1, IMAGE, IMAGE, 2], [3, 4], [-0.5, -1.0])
    same = Reference(rollout.prompt, 2, [-0.5, -1.0])

    def said(r: Rollout, s: Reference) -> str:
        return " ".join(disagreements([r], [s], IMAGE, 1e-3))

    assert said(rollout, same) == ""
    assert "3 image tokens; its pictures have 2" in said(
        rollout._replace(prompt=[1, *[IMAGE] * 3, 2]), same
    )
    assert "token 3 is 5 for the engine and 2" in said(
        rollout._replace(prompt=[1, IMAGE, IMAGE, 5]), same
    )
    assert "5 tokens for the engine and 4" in said(
        rollout._replace(prompt=[*rollout.prompt, 9]), same
    )
    assert "differ by 0.5 on average (1 at most)" in said(
        rollout._replace(logprobs=[-0.5, 0.0]), same
    )
    assert "nan" in said(rollout._replace(logprobs=[float("nan"), -1.0]), same)
    assert said(rollout._replace(logprobs=None), same) == ""


@pytest.fixture
def trainer(tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> tuple[Any, Any]:
    """The GRPO trainer RFT builds, caught before its first step, and its stage."""
    from trl import GRPOTrainer

    from cpt_bench.trainers.rft import RFT

    built: list[Any] = []

    def caught(self: Any) -> None:
        built.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(GRPOTrainer, "train", caught)
    stage = make_stage("lowvision", tiny_model, tmp_path)
    config = RFT.Config(
        learning_rate=1e-4, max_steps=1, prompts_per_step=2, rollouts=2, device="cpu"
    )
    with pytest.raises(KeyboardInterrupt):
        RFT(config).train(stage)
    return built[0], stage


def another_image_token(trainer: Any, turns: Any) -> list[Rollout]:
    """Placeholders expanded twice."""
    token = trainer.processing_class.image_token_id
    doubled = [(r, [t for t in r.prompt for _ in range(2 if t == token else 1)])
               for r in transformers_rollouts(trainer, turns)]  # fmt: skip
    return [r._replace(prompt=prompt) for r, prompt in doubled]


def dropped_image(trainer: Any, turns: Any) -> list[Rollout]:
    """The picture did not reach the engine."""
    bare = [
        [{**t[0], "content": [p for p in t[0]["content"] if p["type"] != "image"]}] for t in turns
    ]
    return transformers_rollouts(trainer, bare)


def swapped_images(trainer: Any, turns: Any) -> list[Rollout]:
    """Each prompt was shown its neighbour's picture: the same tokens, other pixels."""
    pictures = [t[0]["content"][0] for t in turns]
    turned = [
        [{**t[0], "content": [pictures[i - 1], *t[0]["content"][1:]]}] for i, t in enumerate(turns)
    ]
    return transformers_rollouts(trainer, turned)


def stale_weights(trainer: Any, turns: Any) -> list[Rollout]:
    """The engine still has the weights of before a step."""
    layer = trainer.model.model.language_model.layers[1].mlp.down_proj.weight
    kept = layer.detach().clone()
    with torch.no_grad():
        layer.mul_(0.9)
    found = transformers_rollouts(trainer, turns)
    with torch.no_grad():
        layer.copy_(kept)
    return found


def other_words(trainer: Any, turns: Any) -> list[Rollout]:
    """Another chat template: a system prompt of its own."""
    return transformers_rollouts(trainer, [[{"role": "system", "content": [{"type": "text", "text": "a"}]}, *t] for t in turns])  # fmt: skip


@pytest.mark.parametrize(
    ("corrupt", "complaint"),
    [
        (another_image_token, "32 image tokens; its pictures have 16"),
        (dropped_image, "0 image tokens; its pictures have 16"),
        (swapped_images, "log-probabilities of"),
        (stale_weights, "log-probabilities of"),
        (other_words, "for the trainer"),
    ],
)
def test_a_corruption_stops_the_stage(
    corrupt: Callable[..., Any], complaint: str, trainer: tuple[Any, Any]
) -> None:
    check(*trainer, 4, 1e-3)  # the trainer's own engine is fine
    with pytest.raises(CptBenchError) as caught:
        check(*trainer, 4, 1e-3, corrupt)
    assert "disagree before the first step" in str(caught.value)
    assert complaint in str(caught.value)


def test_the_check_leaves_no_trace(tiny_model: Path, tmp_path: Path) -> None:
    """With and without it the same weights come out: it draws from a copy of the random states."""
    from dataclasses import replace

    from cpt_bench.models.checkpoint import weights_digest
    from cpt_bench.trainer import RewardParts
    from cpt_bench.trainers.rft import RFT

    def once(prompts: int) -> str:
        torch.set_num_threads(1)
        stage = make_stage("science", tiny_model, tmp_path / str(prompts))
        stage = replace(stage, reward=lambda i, r: RewardParts(len(r) % 7 / 7, 0.0, False))
        config = RFT.Config(
            learning_rate=1e-3, max_steps=2, prompts_per_step=2, rollouts=4, device="cpu",
            self_check=prompts,
        )  # fmt: skip
        RFT(config).train(stage)
        return weights_digest(stage.output)

    assert once(0) == once(3) != weights_digest(tiny_model)
