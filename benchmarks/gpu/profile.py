"""Part ``profile``: where the time of a supervised step goes, by torch's profiler."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from benchmarks.gpu.scale import Place
from benchmarks.gpu.stages import settings_of, synchronize, train

KINDS = {
    "matrix products": (
        "gemm", "nvjet", "cutlass", "cublas", "aten::mm", "aten::addmm", "aten::bmm",
        "aten::baddbmm",
    ),
    "attention": ("fmha", "flash", "attention", "softmax"),
    "optimiser": ("multi_tensor", "adam"),
    "norms and sums": ("reduce", "norm", "mean", "aten::sum", "aten::pow"),
    "copies": ("memcpy", "copy", "memset", "cat"),
    "elementwise": ("elementwise", "aten::mul", "aten::add", "silu", "fill"),
}  # fmt: skip
"""Kinds of work by what is in the names of kernels (on a CPU, operators); the first that fits."""


def kind_of(name: str) -> str:
    """The kind of work that a kernel or an operator does."""
    lower = name.lower()
    # Attention's kernels are built with the same libraries as products.
    order = ("attention", *KINDS)
    return next((kind for kind in order if any(w in lower for w in KINDS[kind])), "other")


def measure(place: Place) -> dict[str, Any]:
    """Profile the step after the first."""
    from torch.profiler import ProfilerActivity, profile

    cuda = place.scale.device == "cuda"
    watch = profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])
    begun = ended = 0.0

    def between(step: int) -> None:
        nonlocal begun, ended
        if step == 1:
            watch.start()
            begun = time.monotonic()
        elif step == 2:
            synchronize(place.scale.device)
            ended = time.monotonic()
            watch.stop()

    config = settings_of(place, "sft", "cpt7/sft-lora", {"max_steps": 2})
    train(place, "sft", config, between=between, end=False)
    shares: Counter[str] = Counter()
    longest: Counter[str] = Counter()
    for event in watch.key_averages():
        taken = event.self_device_time_total if cuda else event.self_cpu_time_total
        shares[kind_of(event.key)] += taken / 1e6
        longest[event.key[:100]] += taken / 1e6
    busy = sum(shares.values())
    return {
        "seconds of the step": ended - begun,
        "seconds that the device computed": busy,
        "seconds by kind": dict(shares.most_common()),
        "the longest": dict(longest.most_common(20)),
        "step / matrix products": (ended - begun) / max(shares["matrix products"], 1e-9),
    }
