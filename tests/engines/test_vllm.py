"""The vLLM engine's contract, on a stand-in with vLLM's interface: stale weights are never scored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.engines import open_engine
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.engines.vllm_worker import checksum, compare, part, shard, vllm_name
from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import weights_digest
from tests.support import fake_vllm
from tests.support.questions import questions


def test_the_same_replies_and_the_same_digest(tiny_model: Path, monkeypatch: Any) -> None:
    llm = fake_vllm.install(monkeypatch)
    engine: Any = open_engine("vllm", tiny_model, memory=0.5)
    assert engine.weights == weights_digest(tiny_model)
    asked, told = questions(2), []
    replies = engine.generate(asked, 12, told.append)
    assert replies == TransformersEngine(tiny_model, device="cpu").generate(asked, 12)
    assert told == [len(asked)]
    made = llm.made[0].arguments
    assert made["enable_prefix_caching"] is False and made["gpu_memory_utilization"] == 0.5


@pytest.mark.parametrize("which", ["visual.merger.ln_q.weight", "language_model.model.layers.1.mlp.gate_up_proj.weight", "language_model.model.layers.0.self_attn.qkv_proj.weight"])  # fmt: skip
def test_weights_changed_in_the_engine_are_never_scored(
    which: str, tiny_model: Path, monkeypatch: Any
) -> None:
    llm = fake_vllm.install(monkeypatch)
    engine: Any = open_engine("vllm", tiny_model)
    engine.generate(questions(1)[:1], 4)
    held = llm.made[0].worker.model_runner.model.held
    assert which in held
    held[which].view(-1)[-1] += 1e-3
    with pytest.raises(CptBenchError, match="weights changed after they were compared"):
        engine.generate(questions(1)[:1], 4)


def test_an_engine_that_opens_with_other_weights_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The same path, the weights of the last stage: what a cache by name would do."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "stage"))
    llm = fake_vllm.install(monkeypatch)
    inner = llm.__init__

    def stale(self: Any, model: str, **arguments: Any) -> None:
        inner(self, model, **arguments)
        state = load_file(folder / "model.safetensors")
        name = next(n for n in state if n.endswith("q_proj.weight"))
        state[name][0, 0] += 1e-3  # the new stage arrives on disk; the engine does not see it
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(llm, "__init__", stale)
    with pytest.raises(
        CptBenchError, match="does not hold the checkpoint's weights: 1 tensors differ"
    ):
        open_engine("vllm", folder)


def test_a_model_whose_names_are_unknown_is_refused(tiny_model: Path, monkeypatch: Any) -> None:
    llm = fake_vllm.install(monkeypatch)
    inner = llm.__init__

    def renamed(self: Any, model: str, **arguments: Any) -> None:
        inner(self, model, **arguments)
        held = self.worker.model_runner.model.held
        self.worker.model_runner.model.held = {f"x.{name}": p for name, p in held.items()}

    monkeypatch.setattr(llm, "__init__", renamed)
    with pytest.raises(CptBenchError, match=r"only 0 of .* numbers could be compared"):
        open_engine("vllm", tiny_model)


def test_without_vllm_there_is_one_line(tiny_model: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    with pytest.raises(CptBenchError, match=r"pip install 'cptbench\[vllm\]'"):
        open_engine("vllm", tiny_model)


def split(name: str, full: Any, rank: int, size: int) -> Any:
    """A parameter as vLLM splits it over GPUs, written down apart from the code under test."""
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return full[:, rank * full.shape[1] // size : (rank + 1) * full.shape[1] // size]
    if "norm" in name:
        return full
    return full[rank * full.shape[0] // size : (rank + 1) * full.shape[0] // size]


@pytest.mark.parametrize("rank", [0, 1])
def test_parameters_split_over_two_gpus_are_compared(rank: int, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    layer, make = "model.language_model.layers.0", torch.Generator().manual_seed(0)
    shapes = {
        f"{layer}.self_attn.q_proj.weight": (16, 8), f"{layer}.self_attn.k_proj.weight": (4, 8),
        f"{layer}.self_attn.v_proj.weight": (4, 8), f"{layer}.self_attn.o_proj.weight": (8, 16),
        f"{layer}.mlp.gate_proj.weight": (12, 8), f"{layer}.mlp.up_proj.weight": (12, 8),
        f"{layer}.mlp.down_proj.weight": (8, 12), f"{layer}.input_layernorm.weight": (8,),
    }  # fmt: skip
    state = {name: torch.randn(*shape, generator=make) for name, shape in shapes.items()}
    save_file(state, tmp_path / "model.safetensors")
    held: dict[str, Any] = {}
    for name, full in state.items():
        target, place = vllm_name(name)
        mine = split(name, full, rank, 2)
        held[target] = torch.cat([held[target], mine]) if place else mine.clone()
    found = compare(held, tmp_path, rank, 2)
    assert found["differ"] == found["unknown"] == [] and found["compared"] == found["total"]
    wrong = compare(held, tmp_path, 1 - rank, 2)
    assert len(wrong["differ"]) == 7  # all but the norm, which is the same on both
    qkv = held["language_model.model.layers.0.self_attn.qkv_proj.weight"]
    qkv[-1, -1] += 1
    assert compare(held, tmp_path, rank, 2)["differ"] == [f"{layer}.self_attn.v_proj.weight"]


def test_checksums_see_every_bit_and_every_place() -> None:
    tensor = torch.arange(600, dtype=torch.float32).to(torch.bfloat16)
    swapped = tensor.clone()
    swapped[[3, 4]] = swapped[[4, 3]]
    flipped = tensor.clone()
    flipped[599] = -flipped[599]
    assert len({checksum(tensor), checksum(swapped), checksum(flipped)}) == 3
    assert checksum(tensor) == checksum(tensor.clone())
    assert part({}, "model.norm.weight", torch.Size([4]), 0, 1) is None
    assert shard(torch.zeros(7, 3), "x.weight", torch.zeros(4, 4), 0, 1) is None
