"""EWC: the Fisher information and the penalty are those of the paper."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.models.checkpoint import load_model, load_processor
from cpt_bench.trainers.parts import ewc
from cpt_bench.trainers.sft import SFT
from tests.support.stages import SUP, chained, make_stage


def test_ewc_s_gradient_is_that_of_finite_differences() -> None:
    """Of all weights, and of adapters through their product."""
    from peft import LoraConfig, get_peft_model

    for adapters in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)).double()
        names = [n for n, _ in model.named_parameters() if not adapters or "weight" in n]
        part = ewc.EWC.__new__(ewc.EWC)
        part.config = SimpleNamespace(ewc=7.0)
        part.fisher = {n: torch.rand_like(p) for n, p in model.named_parameters() if n in names}
        if adapters:
            peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["0", "1"]))
            model = peft.get_base_model().double()
        part.model, part.anchor = model, {} if adapters else ewc.start(model, part.fisher)
        trained = [p for p in model.parameters() if p.requires_grad]
        with torch.no_grad():
            for p in trained:
                p += 0.1 * torch.randn_like(p)
        loss = part.penalty({})
        assert loss is not None
        grads = torch.autograd.grad(loss, trained)
        for p, grad in zip(trained, grads, strict=True):
            for i in range(p.numel()):
                sides = []
                for h in (1e-6, -1e-6):
                    with torch.no_grad():
                        p.view(-1)[i] += h
                        sides.append(float(part.penalty({})))
                        p.view(-1)[i] -= h
                slope = (sides[0] - sides[1]) / 2e-6
                assert slope == pytest.approx(float(grad.view(-1)[i]), rel=1e-4, abs=1e-7)
        if not adapters:  # lambda/2 sum F (theta - theta*)^2, by hand
            moved = dict(model.named_parameters())
            hand = sum((part.fisher[n] * (moved[n] - part.anchor[n]) ** 2).sum() for n in names)
            assert float(loss) == pytest.approx(3.5 * float(hand))


def test_fisher_is_the_mean_square_of_the_score_and_adds_up(
    tiny_model: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    stage = make_stage("science", tiny_model, tmp_path)
    model = load_model(tiny_model, device="cpu", attention="eager")
    samples = list(stage.samples[:3])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    config = SFT.Config(**SUP)
    whole = ewc.fisher(model, stage, config, samples)
    singles = []
    from cpt_bench.trainers.rollouts import Rollouts, encoded

    replies = Rollouts(model, stage, config).draw(samples, 1, seed=stage.seed)
    collate = encoded(load_processor(tiny_model))
    name = "model.language_model.layers.0.mlp.down_proj.weight"
    weight = dict(model.named_parameters())[name]
    for asked, (reply,) in zip(samples, replies, strict=True):
        batch = collate([(asked, reply)])
        tokens = int((batch["labels"][:, 1:] != -100).sum())
        loss = model(**batch).loss * tokens
        singles.append(torch.autograd.grad(loss, weight)[0] ** 2)
    assert torch.allclose(whole[name], sum(singles) / 3, rtol=1e-3, atol=1e-9)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    total = ewc.consolidated({"w": torch.tensor([2.0])}, {"w": torch.tensor([3.0])}, 0.5)
    assert total["w"].tolist() == [4.0]


@pytest.mark.parametrize("adapters", [0, 4])
def test_ewc_holds_the_second_stage_back(adapters: int, tiny_model: Path, tmp_path: Path) -> None:
    """Nothing in the first stage; in the second, weights that matter move less than with SFT."""
    from safetensors.torch import load_file

    def moved(weight: float) -> tuple[float, list[dict[str, Any]]]:
        config = {**SUP, "max_steps": 6, "lora_rank": adapters, "ewc_samples": 4}
        folder = tmp_path / str(weight)
        first = SFT(SFT.Config(**config, ewc=1e-9))
        stages, logs = chained([first, SFT(SFT.Config(**config, ewc=weight))], tiny_model, folder)
        information = load_file(stages[0].state / ewc.STORE)
        before, after = (
            load_model(p, device="cpu", attention="eager").state_dict()
            for p in (stages[1].policy, stages[1].output)
        )
        cost = sum(float((f * (after[n] - before[n]) ** 2).sum()) for n, f in information.items())
        return cost, logs[0]

    free, log = moved(1e-9)
    held, _ = moved(1e4)
    assert "ewc_penalty" not in log[-1]
    assert held < free / 2


def test_ewc_s_penalty_is_computed_once_a_step(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """It looks at weights alone; however a batch is cut, the step is the same."""
    config = {**SUP, "max_steps": 3, "ewc": 1e3, "ewc_samples": 4}
    (first,), _ = chained([SFT(SFT.Config(**config))], tiny_model, tmp_path)
    calls: list[float] = []
    inner = ewc.EWC.penalty
    monkeypatch.setattr(ewc.EWC, "penalty", lambda *a: calls.append(1) or inner(*a))

    def second(batch: int, accumulation: int) -> dict[str, Any]:
        state = shutil.copytree(first.state, tmp_path / f"state-{batch}")
        stage = make_stage("counting", first.output, tmp_path / f"cut-{batch}", rows := [], index=2, state=state)  # fmt: skip
        cut = {"batch_size": batch, "gradient_accumulation": accumulation}
        SFT(SFT.Config(**{**config, **cut})).train(stage)
        return rows[-1]

    whole, parts = second(4, 1), second(1, 4)
    assert len(calls) == 2 * 3 and whole["ewc_penalty"] > 0
    assert parts["ewc_penalty"] == pytest.approx(whole["ewc_penalty"], rel=2e-2)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=2e-2)
