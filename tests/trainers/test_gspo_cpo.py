"""GSPO's ratio is a whole reply's; CPO holds what earlier tasks moved most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from safetensors.torch import load_file

from cpt_bench.models.checkpoint import load_model, weights_digest
from cpt_bench.trainer import RewardParts
from cpt_bench.trainers.methods import CPO, GSPO
from cpt_bench.trainers.parts import cpo
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT
from tests.support.stages import RL, SUP, chained, make_stage


def test_gspo_s_loss_is_the_paper_s(tiny_model: Path, tmp_path: Path) -> None:
    """-mean_i min(s_i A_i, clip(s_i) A_i), s_i = exp(mean_t ln pi/pi_old), written out by hand."""
    stage = make_stage("science", tiny_model, tmp_path)
    trainer = GSPO(GSPO.Config(**RL, clip=0.05, clip_high=0.1))
    from cpt_bench.trainers.policy import load

    model, processor = load(stage, trainer.config)
    made = trainer.build(stage, [], model, processor, tmp_path)
    assert made.importance_sampling_level == "sequence"
    torch.manual_seed(0)
    now, old = -torch.rand(4, 6), -torch.rand(4, 6)
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0], [1] * 4 + [0] * 2, [1] + [0] * 5])
    advantages = torch.tensor([1.0, -1.0, 0.5, -2.0])
    made.sharing = None
    made._get_per_token_logps_and_entropies = lambda *a, **k: (now, torch.zeros(4, 6), None)
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long), "prompt_mask": torch.ones(4, 1),
        "completion_ids": torch.zeros(4, 6, dtype=torch.long), "completion_mask": mask,
        "advantages": advantages, "old_per_token_logps": old,
    }  # fmt: skip
    made.current_gradient_accumulation_steps = 1
    found = made._compute_loss(made.model, inputs)
    hand = []
    for i in range(4):
        n = int(mask[i].sum())
        s = float(torch.exp((now[i, :n] - old[i, :n]).mean()))
        clipped = min(max(s, 0.95), 1.1)
        hand.append(-min(s * float(advantages[i]), clipped * float(advantages[i])))
    assert float(found) == pytest.approx(sum(hand) / 4, rel=1e-5)


def test_gspo_is_grpo_with_one_update_a_generation(tiny_model: Path, tmp_path: Path) -> None:
    def outcome(name: str, trainer: Any) -> str:
        stage = make_stage("science", tiny_model, tmp_path / name)
        stage = replace(stage, reward=lambda s, r: RewardParts(len(r) % 5 / 5, 0.0, True))
        torch.set_num_threads(1)
        trainer.train(stage)
        return weights_digest(stage.output)

    two = {**RL, "max_steps": 2}
    grpo = outcome("grpo", RFT(RFT.Config(**{**two, "updates_per_generation": 1})))
    gspo = outcome("gspo", GSPO(GSPO.Config(**{**two, "updates_per_generation": 1})))
    a, b = (load_file(tmp_path / n / "out/model.safetensors") for n in ("grpo", "gspo"))
    assert all(torch.allclose(a[k], b[k], atol=2e-5) for k in a)
    assert grpo != weights_digest(tiny_model) != gspo
    later = {**two, "updates_per_generation": 2, "clip": 1e-6}
    apart = [
        outcome("x", RFT(RFT.Config(**later))),
        outcome("y", GSPO(GSPO.Config(**later, clip_high=1e-6))),
    ]
    assert apart[0] != apart[1]


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=60),
    st.sampled_from([0.1, 0.3, 0.9]),
)
def test_the_most_moved_are_the_largest_changes_and_never_more(
    changes: list[float], share: float
) -> None:
    change = torch.tensor(changes)
    mask = cpo.most_moved(change, share)
    assert int(mask.sum()) <= int(len(changes) * share)
    assert not (mask & (change == 0)).any()
    if mask.any() and not mask.all():
        assert change.abs()[mask].min() >= change.abs()[~mask].max() or int(mask.sum()) < int(
            len(changes) * share
        )
    bits = torch.from_numpy(cpo.np.packbits(mask.numpy()))
    assert bool((cpo.unpacked(bits, len(changes)) == mask).all())


def test_the_penalty_is_the_mean_distance_of_the_held_weights() -> None:
    part = cpo.CPO.__new__(cpo.CPO)
    part.config = SimpleNamespace(cpo=100.0)
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(5, requires_grad=True)
    masks = {"a": torch.rand(3, 4) > 0.5, "b": torch.tensor([True, False, False, True, True])}
    masks["a"][0, 0] = True
    part.weights, part.held = {"a": a, "b": b}, masks
    anchors = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    part.anchor = {n: anchors[n][m] for n, m in masks.items()}
    hand = 0.0
    for n, w in {"a": a.detach(), "b": b.detach()}.items():
        gaps = [abs(float(x - y)) for x, y, m in zip(
            w.flatten(), anchors[n].flatten(), masks[n].flatten(), strict=True) if m]  # fmt: skip
        hand += 100 * sum(gaps) / len(gaps)
    found = part.penalty({})
    assert found is not None and float(found.detach()) == pytest.approx(hand, rel=1e-5)
    found.backward()
    assert a.grad is not None and bool((a.grad[~masks["a"]] == 0).all())
    part.held = {}
    assert part.penalty({}) is None


def test_cpo_holds_the_union_of_what_each_task_moved(tiny_model: Path, tmp_path: Path) -> None:
    trainer = SFT(SFT.Config(**SUP, cpo=100.0, cpo_share=0.1))
    stages, logs = chained([trainer], tiny_model, tmp_path / "one")
    first = load_file(stages[0].state / cpo.STORE)
    stages, logs = chained([trainer] * 2, tiny_model, tmp_path / "two")
    both = load_file(stages[1].state / cpo.STORE)
    before, after = (dict(load_model(p, device="cpu", attention="eager").named_parameters())
                     for p in (tiny_model, stages[0].output))  # fmt: skip
    assert first.keys() <= both.keys()
    for name, bits in first.items():
        n = before[name].numel()
        held = cpo.unpacked(bits, n)
        assert int(held.sum()) <= int(n * 0.1)
        moved = (after[name] - before[name]).abs().flatten()
        assert held.any() and float(moved[held].min()) > 0
        joined = cpo.unpacked(both[name], n)
        assert bool((joined | held == joined).all())
    # The first stage has no penalty; in the second nothing has moved at its first step.
    assert not any("cpo_penalty" in row for row in logs[0])
    assert logs[1][0]["cpo_penalty"] == 0 < logs[1][1]["cpo_penalty"]


def test_a_heavy_penalty_keeps_the_held_weights_nearer(tiny_model: Path, tmp_path: Path) -> None:
    def distance(weight: float) -> float:
        config = {**SUP, "max_steps": 6, "learning_rate": 1e-3, "max_grad_norm": 1e9}
        trainers = [SFT(SFT.Config(**config, cpo=w)) for w in (1e-9, weight)]
        stages, _ = chained(trainers, tiny_model, tmp_path / f"{weight:g}")
        held = load_file(stages[0].state / cpo.STORE)
        a, b = (dict(load_model(s.output, device="cpu", attention="eager").named_parameters())
                for s in stages)  # fmt: skip
        total = 0.0
        for name in a:
            if name in held:
                gap = (a[name] - b[name]).abs().flatten()
                total += float(gap[cpo.unpacked(held[name], gap.numel())].sum())
        return total

    assert distance(1e6) < 0.8 * distance(1e-9)


def test_cpo_is_gspo_with_the_penalty() -> None:
    config = CPO.Config(learning_rate=1e-6)
    assert (config.cpo, config.cpo_share, config.ratio) == (100.0, 0.1, "sequence")
    assert (config.clip, config.clip_high, config.updates_per_generation) == (3e-4, 4e-4, 4)
