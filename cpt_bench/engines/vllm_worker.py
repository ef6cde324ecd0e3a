"""Runs inside vLLM's workers: compares their parameters with a checkpoint's files.

vLLM renames parameters, joins some (q, k and v; gate and up) and splits them over GPUs. Each tensor
of the checkpoint is compared with exactly those rows of a parameter that it fills on this GPU; and
every row of every parameter must be filled by a tensor, because any other row is uninitialised
memory, or belongs to an earlier checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cpt_bench.engines.swapping import shapes_of, tensors_of

Rename = Callable[[str], str]
"""A tensor's name in a checkpoint to its name in vLLM, before parts are joined."""

VOCABULARY = ("embed_tokens.weight", "lm_head.weight")
"""Parameters with more rows than the checkpoint's: vLLM pads the vocabulary."""

COMPUTED = ("rotary_emb.inv_freq",)
"""Tensors in files of older versions that are not weights: models compute them."""


class WeightsCheck:
    """Mixed into vLLM's workers by ``worker_extension_cls``."""

    def cptbench_load(self, folder: str) -> None:
        """Replace the worker's tensors by a checkpoint's, with the model's own loader.

        Not with vLLM's ``reload_weights``, which has loaded cached weights.
        """
        model = self.model_runner.model  # type: ignore[attr-defined]
        model.load_weights(tensors_of(Path(folder)))

    def cptbench_compare(self, folder: str, dtype: str) -> dict[str, Any]:
        """Compare every tensor of the checkpoint with this worker's parameters."""
        from vllm.distributed import (
            get_tensor_model_parallel_rank,
            get_tensor_model_parallel_world_size,
        )

        model = self.model_runner.model  # type: ignore[attr-defined]
        worker = Worker(
            parameters=dict(model.named_parameters(remove_duplicate=False)),
            rename=renaming(model),
            joined=joined_modules(model),
            rank=get_tensor_model_parallel_rank(),
            size=get_tensor_model_parallel_world_size(),
        )
        return compare(worker, Path(folder), getattr(torch, dtype))

    def cptbench_checksum(self) -> int:
        """A checksum that almost certainly changes if any bit of any parameter does."""
        model = self.model_runner.model  # type: ignore[attr-defined]
        return sum(checksum(p) * (i + 1) for i, (_, p) in enumerate(model.named_parameters()))


class Worker(NamedTuple):
    """A worker's parameters, and its rank among the workers that share one copy of the model.

    Attributes:
        parameters: By vLLM's names; a tied parameter under each of its names.
        rename: The checkpoint's names to vLLM's.
        joined: vLLM's module to those of the checkpoint that it joins, in order.
        rank: The worker's rank among those that share a copy.
        size: How many workers share a copy.
    """

    parameters: Mapping[str, torch.Tensor]
    rename: Rename
    joined: Mapping[str, Sequence[str]]
    rank: int
    size: int


class Part(NamedTuple):
    """The part of a checkpoint's tensor that one worker must have.

    Attributes:
        name: The parameter.
        start: The first of the parameter's rows that come from it.
        rows: The required values of those rows.
    """

    name: str
    start: int
    rows: torch.Tensor


def renaming(model: Any) -> Rename:
    """The names a model's loader gives to a checkpoint's tensors."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is None:
        return lambda name: name
    return lambda name: (mapper.apply_list([name]) or [""])[0]


def joined_modules(model: Any) -> dict[str, Sequence[str]]:
    """Modules of vLLM to those that they join; a language model inside another has its own."""
    joined: dict[str, Sequence[str]] = {}
    for part in [*model.modules()][::-1]:  # the outermost has the last word
        joined |= getattr(part, "packed_modules_mapping", None) or {}
    return joined


def checksum(tensor: torch.Tensor) -> int:
    """Position-weighted sum of a tensor's bits, modulo 2**64; computed on the tensor's device."""
    bits = tensor.detach().contiguous().view(torch.uint8).flatten()
    total = 0
    for start in range(0, bits.numel(), 1 << 26):
        part = bits[start : start + (1 << 26)].to(torch.int64)
        weights = torch.arange(1, part.numel() + 1, device=part.device) % 65521 + 1
        total += int((part * weights).sum()) * (start // (1 << 26) + 1)
    return int(total % 2**64)


def compare(worker: Worker, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Compare a worker's parameters with a checkpoint, in both directions.

    Args:
        worker: The worker.
        folder: The checkpoint.
        dtype: The dtype of the arithmetic, in which the worker must have the tensors.

    Returns:
        ``compared``, how many of the ``total`` numbers in the files were compared; ``differ``, the
        tensors that differ from the worker's; ``unknown``, those that belong to no parameter; and
        ``unfilled``, the parameters with rows that come from no tensor.
    """
    shapes = shapes_of(folder)
    filled: dict[int, torch.Tensor] = {}
    compared = total = 0
    differ, unknown = [], []
    for name, full in tensors_of(folder):
        if name.endswith(COMPUTED):
            continue
        total += full.numel()
        part = part_of(worker, name, full, shapes)
        if part is None:
            unknown.append(name)
            continue
        compared += full.numel()
        whole, end = worker.parameters[part.name], part.start + len(part.rows)
        held = whole[part.start : end]
        if held.dtype != dtype or not torch.equal(held.detach().cpu(), part.rows.to(dtype)):
            differ.append(name)
        rows = filled.setdefault(whole.data_ptr(), torch.zeros(len(whole), dtype=torch.bool))
        rows[part.start : end] = True
        if part.name.endswith(VOCABULARY) and (worker.rank + 1) * len(whole) >= len(full):
            rows[end:] = True  # the padding after the vocabulary's last row
    unfilled = [
        name
        for name, whole in worker.parameters.items()
        if whole.data_ptr() not in filled or not bool(filled[whole.data_ptr()].all())
    ]
    found = {"compared": compared, "total": total}
    return {**found, "differ": differ, "unknown": unknown, "unfilled": unfilled}


def part_of(
    worker: Worker, name: str, full: torch.Tensor, shapes: Mapping[str, tuple[int, ...]]
) -> Part | None:
    """The place of a checkpoint's tensor in a worker's parameters; None if it has none.

    Args:
        worker: The worker.
        name: The tensor's name.
        full: The tensor.
        shapes: The shapes of all tensors of the checkpoint.
    """
    target = worker.rename(name)
    module, _, kind = target.rpartition(".")
    parent, _, last = module.rpartition(".")
    # Some models' own mapping names the joined module already, and not which part of it this is.
    # (A module that is its own only part, as vision towers' qkv, is the checkpoint's, too.)
    own = name.rpartition(".")[0].rpartition(".")[2]
    parts = worker.joined.get(last, ())
    if len(parts) > 1 and own in parts:
        last = own
    elif target in worker.parameters:
        rows = shard(full, target, worker.parameters[target], worker.rank, worker.size)
        return None if rows is None else Part(target, 0, rows)
    for joined, parts in worker.joined.items():
        place = f"{parent}.{joined}.{kind}"
        if last in parts and place in worker.parameters:
            head = name.removesuffix(f"{last}.{kind}")
            others = [shapes.get(f"{head}{other}.{kind}") for other in parts]
            held = worker.parameters[place]
            share = _share(worker, [*parts].index(last), others, held)
            if share is None or held.shape[1:] != full.shape[1:]:
                return None
            start, begin, end = share
            return Part(place, start, full[begin:end])
    return None


def _share(
    worker: Worker, place: int, shapes: Sequence[tuple[int, ...] | None], held: torch.Tensor
) -> tuple[int, int, int] | None:
    """For one of several joined tensors: its first row in the parameter, and its own row range.

    With three tensors, q is split; k and v share the remaining rows equally: they are split too,
    or, if there are more workers than heads, each head is repeated. The first tensor may be
    missing: then it has the rows that the others leave.
    """
    rank, size = worker.rank, worker.size
    own, first = shapes[place], shapes[0]
    if own is None:
        return None
    rows = own[0] // size
    if place == 0:
        return 0, rank * rows, (rank + 1) * rows
    others = len(shapes) - 1
    leading = first[0] // size if first is not None else len(held) - others * rows
    each = (len(held) - leading) // others
    if each <= 0:
        return None
    begin = rank * own[0] // size // each * each
    return leading + (place - 1) * each, begin, begin + each


def shard(
    full: torch.Tensor, name: str, held: torch.Tensor, rank: int, size: int
) -> torch.Tensor | None:
    """The part of ``full`` that worker ``rank`` must have; None if no split fits the shapes."""
    fused = name.endswith(("qkv.weight", "qkv.bias"))
    if full.shape == held.shape and (size == 1 or not fused):
        return full
    if fused and full.shape[0] == held.shape[0] * size:
        return torch.cat([third.chunk(size)[rank] for third in full.chunk(3)])
    if full.dim() == held.dim() and full.shape[1:] == held.shape[1:]:
        start = rank * held.shape[0]
        if held.shape[0] * size >= full.shape[0]:
            return full[start : start + held.shape[0]]
    if full.dim() == 2 and held.shape == (full.shape[0], full.shape[1] // size):
        return full.chunk(size, dim=1)[rank]
    return None
