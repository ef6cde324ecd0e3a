"""vLLM's workers that share a copy: each holds its part of the checkpoint, and heads that repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cpt_bench.engines import open_engine
from cpt_bench.errors import CptBenchError
from cpt_bench.suite import Suite
from tests.support.peers import SMALL, changed, model_of, replies, transformers


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_two_workers(
    kv_heads: int, base: Path, nano: Suite, tmp_path: Path, monkeypatch: Any
) -> None:
    """With one head of keys and values for two workers, both have the same one."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # the functions below
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    folder = model_of(base, tmp_path / "model", **sizes, num_key_value_heads=kv_heads)
    engine: Any = open_engine("vllm", folder, tensor_parallel=2, **SMALL)
    rows = engine._llm.apply_model(_joined_rows)
    assert rows == [64 + 2 * 32] * 2, "two q heads, and a head of k and of v, on each"
    told = replies(engine, nano, 3)
    assert told == replies(transformers(folder), nano, 3)
    other = changed(folder, tmp_path / "other")
    engine.swap(other)
    assert replies(engine, nano, 3) == replies(transformers(other), nano, 3) != told

    def without_v(state: dict[str, Any]) -> None:
        del state["model.layers.1.self_attn.v_proj.weight"]

    with pytest.raises(CptBenchError, match=r"come from no tensor, first .*qkv_proj.weight"):
        engine.swap(changed(folder, tmp_path / "cut", without_v))
    engine.swap(folder)
    engine._llm.apply_model(_spoil)
    with pytest.raises(CptBenchError, match="weights changed after they were compared"):
        replies(engine, nano, 1)


def _joined_rows(model: Any) -> int:
    name = "language_model.model.layers.0.self_attn.qkv_proj.weight"
    return len(dict(model.named_parameters())[name])


def _spoil(model: Any) -> None:
    """On the second worker alone."""
    from vllm.distributed import get_tensor_model_parallel_rank

    if get_tensor_model_parallel_rank() == 1:
        next(model.parameters()).data.view(-1)[0] += 1e-6
