"""LwF: distillation from the policy that the stage began with, and how a penalty is scaled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.trainer import RewardParts, Stage
from cpt_bench.trainers.methods import LwF
from cpt_bench.trainers.parts import lwf
from cpt_bench.trainers.parts.part import Part, _batches_a_step
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT
from tests.support.stages import RL, SUP, chained, make_stage


def test_lwf_at_weight_0_is_sft_bit_for_bit(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def outcome(name: str, trainer: Any) -> str:
        (stage,), _ = chained([trainer], tiny_model, tmp_path / name)
        return weights_digest(stage.output)

    plain = outcome("sft", SFT(SFT.Config(**SUP)))
    assert outcome("off", LwF(LwF.Config(**SUP, lwf=0.0))) == plain
    assert outcome("on", LwF(LwF.Config(**SUP, lwf=1.0))) != plain
    # With the whole machinery running, teacher and all, a weight of 0 changes no bit either. It
    # looks into TRL's own loss, so that it is compared with that.
    from cpt_bench.trainers import base

    with monkeypatch.context() as patch:
        patch.setattr(SFT, "hooks_model", True)
        stock = outcome("stock", SFT(SFT.Config(**SUP)))
    made: list[Part] = []

    def forced(config: Any, stage: Stage) -> list[Part]:
        made.append(lwf.LwF(config, stage))
        return made

    monkeypatch.setattr(base, "parts_of", forced)
    assert outcome("zero", SFT(SFT.Config(**SUP))) == stock and len(made) == 1


def test_distillation_is_the_softened_divergence() -> None:
    target, ours = torch.randn(6, 9), torch.randn(6, 9)
    for t in (1.0, 2.0):
        p, q = (target / t).softmax(-1), (ours / t).softmax(-1)
        hand = t * t * (p * (p / q).log()).sum(-1).mean()
        assert lwf.distillation(ours, target, t) == pytest.approx(float(hand), rel=1e-5)
    assert lwf.distillation(target, target, 2.0) == pytest.approx(0, abs=1e-6)
    none = torch.zeros(0, 9, requires_grad=True)
    lwf.distillation(none, none.detach(), 2.0).backward()  # a batch with nothing to train on


@pytest.mark.parametrize("name", ["sft", "grpo", "rloo", "sft+lora"])
def test_lwf_measures_against_the_start_policy_where_tokens_are_trained(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The penalty of a first batch is 0: nothing has moved. Of a later one it is not."""
    inner = lwf.LwF.penalty
    seen: list[float] = []

    def spy(self: Any, inputs: Any) -> Any:
        term = inner(self, inputs)
        seen.append(float(term.detach()))
        assert term.requires_grad
        return term

    monkeypatch.setattr(lwf.LwF, "penalty", spy)
    if name.startswith("sft"):
        rank = 4 if "lora" in name else 0
        trainer: Any = SFT(SFT.Config(**SUP, lwf=1.0, lora_rank=rank))
    else:
        trainer = RFT(RFT.Config(**{**RL, "max_steps": 2}, lwf=1.0, algorithm=name))
    stage = make_stage("science", tiny_model, tmp_path)
    torch.set_num_threads(1)
    trainer.train(replace(stage, reward=lambda s, r: RewardParts(len(r) % 5 / 5, 0.0, True)))
    assert seen[0] == pytest.approx(0, abs=1e-5) and seen[1] > 1e-6


def test_a_penalty_counts_once_a_step_however_a_batch_is_cut(
    tiny_model: Path, tmp_path: Path
) -> None:
    def first(batch: int, accumulation: int) -> dict[str, Any]:
        cut = {"batch_size": batch, "gradient_accumulation": accumulation, "max_steps": 2}
        trainer = SFT(SFT.Config(**{**SUP, **cut}, lwf=50.0))
        _, logs = chained([trainer], tiny_model, tmp_path / str(batch))
        return logs[0][1]  # the first step has nothing to penalise

    whole, parts = first(4, 1), first(1, 4)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=2e-2)
    assert parts["lwf_penalty"] == pytest.approx(whole["lwf_penalty"], rel=2e-2)


def test_penalties_are_scaled_as_each_trl_trainer_scales_its_loss() -> None:
    from trl import GRPOTrainer, RLOOTrainer

    def batches(kind: Any, accepts: bool, items: Any) -> int:
        return _batches_a_step(
            SimpleNamespace(loss_is_scaled_for_ga=kind.loss_is_scaled_for_ga,
                            compute_loss_func=None, model_accepts_loss_kwargs=accepts,
                            current_gradient_accumulation_steps=4), items)  # fmt: skip

    from trl import SFTTrainer

    assert batches(SFTTrainer, True, 10) == 4  # the loss is divided by the step's tokens
    assert batches(SFTTrainer, False, None) == 1  # transformers divides by the batches
    assert batches(GRPOTrainer, True, None) == 4  # GRPO has divided already
    assert batches(RLOOTrainer, False, None) == 1
