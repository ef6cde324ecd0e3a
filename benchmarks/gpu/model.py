"""Part ``model``: the checkpoint that the parts after it start from."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.gpu import architecture
from benchmarks.gpu.scale import Place
from cpt_bench.advice.estimate import GIB
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.models.families.weights import Architecture


def measure(place: Place) -> dict[str, Any]:
    """Make it, write it, digest it."""
    start = time.monotonic()
    weights = architecture.write(place.model, place.scale.facts, place.scale.device)
    made = time.monotonic()
    weights_digest(place.model)
    size = sum(file.stat().st_size for file in place.model.glob("*.safetensors"))
    return {
        "weights": weights,
        "weights counted by the plan": Architecture.of(place.scale.facts).parameters,
        "gib": size / GIB,
        "seconds to make and write": made - start,
        "seconds of the digest": time.monotonic() - made,
    }
