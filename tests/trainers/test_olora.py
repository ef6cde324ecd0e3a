"""Adapters: merged and seeded; O-LoRA's subspaces are orthogonal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.trainers.methods import LoRA, OLoRA
from cpt_bench.trainers.parts import olora
from tests.support.stages import SUP, chained


def test_olora_s_subspaces_are_orthogonal(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    def overlap(trainer: Any, folder: Path) -> float:
        stages, _ = chained([trainer] * 3, tiny_model, folder)
        rows = load_file(stages[-1].state / olora.STORE)
        worst = 0.0
        for a in rows.values():
            assert a.shape[0] == 3 * 4
            for i in range(3):
                for j in range(i):
                    u, v = (torch.linalg.qr(a[4 * k : 4 * k + 4].T)[0] for k in (i, j))
                    # The cosine of the smallest angle between the two subspaces.
                    worst = max(worst, float(torch.linalg.matrix_norm(u.T @ v, ord=2)))
        return worst

    config = {**SUP, "lora_rank": 4}
    assert overlap(OLoRA(OLoRA.Config(**config)), tmp_path / "project") < 1e-5
    soft = overlap(OLoRA(OLoRA.Config(**config, olora="penalty", olora_weight=1e-12)), tmp_path / "no")  # fmt: skip
    assert soft > 0.1  # without the constraint they are not


def test_olora_s_penalty_is_the_paper_s_sum() -> None:
    part = olora.OLoRA.__new__(olora.OLoRA)
    part.config = SimpleNamespace(olora="penalty", olora_weight=0.5)
    earlier, now = torch.randn(4, 6), torch.randn(2, 6, requires_grad=True)
    part.earlier, part.layers = {"l": earlier}, {"l": now}
    hand = 0.5 * sum(abs(float(e @ n)) for e in earlier for n in now)
    found = part.penalty({})
    assert found is not None and float(found) == pytest.approx(hand, rel=1e-5)
    part.earlier = {}
    assert part.penalty({}) is None


def test_olora_says_when_there_is_no_room_left(tiny_model: Path, tmp_path: Path) -> None:
    trainer = OLoRA(OLoRA.Config(**SUP, lora_rank=24))
    with pytest.raises(CptBenchError, match="no room for rank 24"):
        chained([trainer] * 3, tiny_model, tmp_path)


def test_adapters_are_merged_and_seeded(tiny_model: Path, tmp_path: Path) -> None:
    (first,), _ = chained([LoRA(LoRA.Config(**SUP))], tiny_model, tmp_path / "a")
    (second,), _ = chained([LoRA(LoRA.Config(**SUP))], tiny_model, tmp_path / "b")
    assert weights_digest(first.output) == weights_digest(second.output)
    assert not (first.output / "adapter_config.json").exists()
