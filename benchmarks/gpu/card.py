"""The device that is measured: its name, and how quick its matrix products are."""

from __future__ import annotations

import time
from typing import Any

from cpt_bench.advice.estimate import GIB, GPU, GPUS

KNOWN = {"H100": "h100-80", "H200": "h200", "A100": "a100-80"}
"""What is in the name of a GPU that ``cptbench plan`` knows, to its name there."""


def name(device: str) -> str:
    """The card's name, or the processor's place."""
    if device == "cpu":
        return "CPU"
    import torch

    return str(torch.cuda.get_device_name())


def known(device: str) -> GPU:
    """The device as a plan sees it; one that plans do not know has the peak that it shows here."""
    called = name(device)
    key = key_of(called)
    return GPUS[key] if key else GPU(called, gib(device), products(device))


def key_of(called: str) -> str | None:
    """What a plan calls a card; None where no plan knows it."""
    return next((key for word, key in KNOWN.items() if word in called), None)


def gib(device: str) -> float:
    """Its memory in GiB; a CPU's is what a plan for it would never fill."""
    if device == "cpu":
        return 1.0
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory / GIB)


def products(device: str) -> float:
    """Operations a second in products of square matrices, in the arithmetic of training."""
    import torch

    side, times, dtype = (8192, 10, torch.bfloat16) if device == "cuda" else (128, 3, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(3):
        a @ b
    wait()
    start = time.monotonic()
    for _ in range(times):
        a @ b
    wait()
    return float(times * 2 * side**3 / max(time.monotonic() - start, 1e-9))


def facts(device: str) -> dict[str, Any]:
    """For the JSON of a part."""
    import torch

    found: dict[str, Any] = {"card": name(device), "torch": torch.__version__}
    if device == "cuda":
        found |= {"cuda": torch.version.cuda, "gib": round(gib(device), 1)}
    return found
