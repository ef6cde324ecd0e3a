"""Resets between tasks leave the rest of a model alone; Muon's steps have the size of AdamW's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from safetensors.torch import load_file

from cpt_bench.models.checkpoint import load_model
from cpt_bench.trainers import muon
from cpt_bench.trainers.parts import reset
from cpt_bench.trainers.sft import SFT
from tests.support.stages import SUP, chained


class Gated(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = torch.nn.Linear(4, 6, bias=bias)
        self.up_proj = torch.nn.Linear(4, 6, bias=bias)
        self.down_proj = torch.nn.Linear(6, 4, bias=False)

    def forward(self, x: Any, **_: Any) -> Any:
        return self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.booleans())
def test_reviving_draws_dormant_units_anew_and_touches_no_other(
    dormant: list[bool], bias: bool
) -> None:
    block, mask = Gated(bias), torch.tensor(dormant)
    before = {n: p.detach().clone() for n, p in block.named_parameters()}
    reset.revive(block, mask, torch.Generator().manual_seed(0))
    bound = math.sqrt(3) * math.sqrt(2) / math.sqrt(4)
    for name, weight in block.named_parameters():
        old = before[name]
        if name.startswith("down"):
            assert bool((weight[:, mask] == 0).all())
            assert bool((weight[:, ~mask] == old[:, ~mask]).all())
        else:
            assert bool((weight[~mask] == old[~mask]).all())
            limit = bound if weight.ndim == 2 else 0.5
            assert bool((weight[mask].abs() <= limit).all())
            assert not mask.any() or not torch.equal(weight[mask], old[mask])


def test_activity_is_each_unit_s_share_of_its_layer_s_mean() -> None:
    block = Gated()
    with torch.no_grad():
        block.up_proj.weight[2] = 0  # a dead unit

    class Model(torch.nn.Module):  # type: ignore[misc]
        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.mlp = block

        def forward(self, x: Any, **_: Any) -> Any:
            return self.mlp(x)

    x = torch.randn(3, 5, 4)
    (found,) = reset.activity(Model(), {"x": x}).values()
    hidden = (torch.nn.functional.silu(block.gate_proj(x)) * block.up_proj(x)).abs().mean((0, 1))
    assert torch.allclose(found, hidden / hidden.mean(), rtol=1e-4)
    assert found[2] == 0 and float(found.mean()) == pytest.approx(1, rel=1e-4)


def test_redo_resets_what_the_last_task_left_dormant(tiny_model: Path, tmp_path: Path) -> None:
    still = {**SUP, "learning_rate": 1e-12}
    trainer = SFT(SFT.Config(**still, reset="redo", reset_threshold=0.5))
    (alone,), _ = chained([trainer], tiny_model, tmp_path / "one")
    dormant = load_file(alone.state / reset.STORE)
    stages, _ = chained([trainer] * 2, tiny_model, tmp_path / "two")
    assert any(bool(mask.any()) for mask in dormant.values())
    first, second = (load_model(s.output, device="cpu", attention="eager") for s in stages)
    ours, theirs = dict(reset.gated(first)), dict(reset.gated(second))
    # What was measured at the end of a task is reset when the next begins: its checkpoint is not.
    for name, mask in load_file(stages[1].state / reset.STORE).items():
        assert name in ours and mask.dtype == torch.bool
    changed = 0
    for name, block in theirs.items():
        gap = (block.down_proj.weight - ours[name].down_proj.weight).abs()
        same = (gap < 1e-6).all(dim=0)
        assert bool((same == ~dormant[name]).all())
        changed += int((~same).sum())
        assert bool((block.down_proj.weight[:, ~same].abs() < 1e-6).all())
    assert changed > 0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_fire_s_matrix_is_the_nearest_orthogonal_one(rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    matrix = torch.eye(rows, columns) + 0.1 * torch.randn(rows, columns)
    found = reset.newton_schulz(matrix)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    # The same singular vectors; the values have gone towards 1 and none beyond.
    values = torch.diagonal(u.T @ found @ v.T)
    assert torch.allclose(u @ torch.diag(values) @ v, found, atol=1e-4)
    start = torch.linalg.svdvals(matrix) / matrix.norm()
    assert bool((values >= start - 1e-4).all()) and bool((values <= 1 + 1e-4).all())


def test_fire_resets_queries_and_keys_from_the_second_task_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    still = {**SUP, "learning_rate": 1e-12}
    stages, _ = chained([SFT(SFT.Config(**still, reset="fire"))] * 2, tiny_model, tmp_path)
    base, first, second = (
        load_file(folder / "model.safetensors")
        for folder in (tiny_model, *(s.output for s in stages))
    )
    moved = {name for name in first if not torch.allclose(first[name], second[name], atol=1e-6)}
    assert all(torch.allclose(base[name], first[name], atol=1e-6) for name in base)
    wanted = {n for n in first if n.endswith(("q_proj.weight", "k_proj.weight"))}
    assert moved == wanted and wanted


def test_muon_s_step_has_equal_directions_and_adamw_s_size() -> None:
    torch.manual_seed(1)
    for rows, columns in ((8, 8), (16, 4), (4, 16)):
        update = muon.muon(torch.randn(rows, columns), {})
        values = torch.linalg.svdvals(update) / (0.2 * math.sqrt(max(rows, columns)))
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3
        # AdamW's first step is 1 in every element, Muon's 0.2 on average of squares.
        assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)


def test_muon_is_torch_s_own_on_matrices() -> None:
    torch.manual_seed(2)
    start, grads = torch.randn(8, 6), [torch.randn(8, 6) for _ in range(3)]
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = muon.Muon([("layer.weight", ours)], 0.01, 0.1)
    other = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for grad in grads:
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=2e-4)  # torch's Newton-Schulz is in bfloat16


def test_adamw_is_torch_s_own_on_the_rest() -> None:
    torch.manual_seed(3)
    names = {"embed_tokens.weight": (9, 4), "norm.weight": (5,), "long.weight": (40, 4)}
    weights = {n: torch.nn.Parameter(torch.randn(shape)) for n, shape in names.items()}
    copies = {n: torch.nn.Parameter(w.detach().clone()) for n, w in weights.items()}
    mine = muon.Muon(weights.items(), 0.01, 0.1)
    other = torch.optim.AdamW(copies.values(), lr=0.01, weight_decay=0.1)
    assert [group["matrices"] for group in mine.param_groups] == [False]
    for _ in range(4):
        for name in names:
            grad = torch.randn(names[name])
            weights[name].grad, copies[name].grad = grad.clone(), grad.clone()
        mine.step()
        other.step()
    for name in names:
        assert torch.allclose(weights[name], copies[name], atol=1e-6)


def test_muon_trains_and_its_rate_follows_the_schedule(tiny_model: Path, tmp_path: Path) -> None:
    config = {**SUP, "max_steps": 3}
    stages, logs = chained([SFT(SFT.Config(**config, optimizer="muon"))], tiny_model, tmp_path)
    before, after = (load_file(p / "model.safetensors") for p in (tiny_model, stages[0].output))
    moved = [n for n in before if not torch.equal(before[n], after[n])]
    assert any("mlp" in n for n in moved) and any("norm" in n for n in moved)
    rates = [row["learning_rate"] for row in logs[0]]
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[-1]
