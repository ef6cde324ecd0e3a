"""What runs inside vLLM's workers: compare the parameters they hold with a checkpoint's files.

vLLM renames parameters, joins some (q, k and v; gate and up) and splits them over GPUs. A tensor of
the checkpoint is compared with the very part of the parameter it must have become on this GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cpt_bench.engines.swapping import tensors_of

PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("model.visual.", "visual."),
    ("lm_head.", "language_model.lm_head."),
    ("model.", "language_model.model."),
)
"""Checkpoint's to vLLM's names, of Qwen2.5-VL; the first that fits."""

JOINED = {
    "q_proj": ("qkv_proj", 0),
    "k_proj": ("qkv_proj", 1),
    "v_proj": ("qkv_proj", 2),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}
"""Checkpoint's module to vLLM's joined one, and its place in it."""


class WeightsCheck:
    """Mixed into vLLM's workers by ``worker_extension_cls``."""

    def cptbench_load(self, folder: str) -> list[str]:
        """Put a checkpoint's tensors in the place of those held, by the model's own loader.

        Not by vLLM's ``reload_weights``, which has loaded what it had cached.

        Returns:
            Parameters of which the loader did not say that it filled them.
        """
        model = self.model_runner.model  # type: ignore[attr-defined]
        filled = model.load_weights(tensors_of(Path(folder)))
        return sorted({name for name, _ in model.named_parameters()} - set(filled or ()))

    def cptbench_compare(self, folder: str) -> dict[str, Any]:
        """Compare every tensor of the checkpoint with what this worker holds."""
        from vllm.distributed import (
            get_tensor_model_parallel_rank,
            get_tensor_model_parallel_world_size,
        )

        model = self.model_runner.model  # type: ignore[attr-defined]
        place = (get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size())
        return compare(dict(model.named_parameters()), Path(folder), *place)

    def cptbench_checksum(self) -> int:
        """A number that changes when any bit of any parameter does (but for chance)."""
        model = self.model_runner.model  # type: ignore[attr-defined]
        return sum(checksum(p) * (i + 1) for i, (_, p) in enumerate(model.named_parameters()))


def checksum(tensor: torch.Tensor) -> int:
    """Position-weighted sum of a tensor's bits, modulo 2**64; computed where the tensor is."""
    bits = tensor.detach().contiguous().view(torch.uint8).flatten()
    total = 0
    for start in range(0, bits.numel(), 1 << 26):
        part = bits[start : start + (1 << 26)].to(torch.int64)
        weights = torch.arange(1, part.numel() + 1, device=part.device) % 65521 + 1
        total += int((part * weights).sum()) * (start // (1 << 26) + 1)
    return int(total % 2**64)


def compare(
    parameters: dict[str, torch.Tensor], folder: Path, rank: int, size: int
) -> dict[str, Any]:
    """``{compared, total, differ, unknown}`` of a worker's parameters and a checkpoint.

    Args:
        parameters: The worker's, by vLLM's names.
        folder: The checkpoint.
        rank: Of the worker among those that share a copy.
        size: How many share a copy.
    """
    from safetensors import safe_open

    compared = total = 0
    differ, unknown = [], []
    shapes: dict[str, torch.Size] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [*tensors.keys()]
            shapes |= {n: torch.Size(tensors.get_slice(n).get_shape()) for n in names}
            for name in names:
                full = tensors.get_tensor(name)
                total += full.numel()
                held = part(parameters, name, full.shape, rank, size)
                if held is None:
                    unknown.append(name)
                    continue
                mine = shard(full, name, held, rank, size)
                if mine is None:
                    unknown.append(name)
                    continue
                compared += full.numel()
                rows = held[: mine.shape[0]]  # a vocabulary is padded
                if not torch.equal(rows.detach().cpu(), mine.to(held.dtype)):
                    differ.append(name)
    return {"compared": compared, "total": total, "differ": differ, "unknown": unknown}


def vllm_name(name: str) -> tuple[str, int | None]:
    """VLLM's name of a checkpoint's tensor, and its place when it is one of several joined."""
    for old, new in PREFIXES:
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    module, _, kind = name.rpartition(".")
    parent, _, last = module.rpartition(".")
    if last in JOINED:
        joined, place = JOINED[last]
        return f"{parent}.{joined}.{kind}", place
    return name, None


def part(
    parameters: dict[str, torch.Tensor], name: str, shape: torch.Size, rank: int, size: int
) -> torch.Tensor | None:
    """The part of a worker's parameter that a checkpoint's tensor became; None if there is none."""
    target, place = vllm_name(name)
    held = parameters.get(target)
    if held is None or place is None:
        return held
    rows = shape[0] // size
    if target.rpartition(".")[0].endswith("gate_up_proj"):
        return held[place * rows : (place + 1) * rows]
    # q takes its share; k and v, equally large, the rest. They may be repeated, not split.
    if place == 0:
        return held[:rows]
    first = _rows_of_q(held, shape, size)
    each = (held.shape[0] - first) // 2
    return held[first + (place - 1) * each : first + place * each]


def _rows_of_q(held: torch.Tensor, kv: torch.Size, size: int) -> int:
    """Rows of q in a joined parameter: all but two of k's rows on this worker."""
    each = max(int(kv[0]) // size, 1)
    if size > 1 and kv[0] % size:
        each = int(kv[0])
    return int(held.shape[0]) - 2 * each


def shard(
    full: torch.Tensor, name: str, held: torch.Tensor, rank: int, size: int
) -> torch.Tensor | None:
    """What worker ``rank`` must hold of ``full``; None when the shapes fit no way of splitting."""
    if full.shape == held.shape and (size == 1 or not name.endswith(("qkv.weight", "qkv.bias"))):
        return full
    if name.endswith(("qkv.weight", "qkv.bias")) and full.shape[0] == held.shape[0] * size:
        return torch.cat([third.chunk(size)[rank] for third in full.chunk(3)])
    if full.dim() == held.dim() and full.shape[1:] == held.shape[1:]:
        start = rank * held.shape[0]
        if held.shape[0] * size >= full.shape[0]:
            return full[start : start + held.shape[0]]
    if full.dim() == 2 and held.shape == (full.shape[0], full.shape[1] // size):
        return full.chunk(size, dim=1)[rank]
    return None
