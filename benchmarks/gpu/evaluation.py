"""Part ``evaluation``: replies of the engine that runs use, and weights swapped in place."""

from __future__ import annotations

import time
from typing import Any

import psutil

from benchmarks.gpu import card
from benchmarks.gpu.scale import Place
from benchmarks.gpu.stages import drawn, memory, synchronize
from cpt_bench.advice.estimate import ASSUMED
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.models.families.weights import Architecture


def measure(place: Place) -> dict[str, Any]:
    """Seconds of reading and of writing, then the checkpoint of part ``sft`` swapped in."""
    scale = place.scale
    requests = [Request(s.id, s.question, s.images) for s in drawn(place, scale.asked)]

    def seconds(engine: Any, most: int) -> tuple[float, list[Any]]:
        start = time.monotonic()
        replies = engine.generate(requests, most)
        synchronize(scale.device)
        return time.monotonic() - start, replies

    engine = TransformersEngine(place.model, device=scale.device)
    # Since the process began: an engine of a run imports as much before it answers.
    opened = time.time() - psutil.Process().create_time()
    engine.generate(requests[: engine.batch_size], 2)  # the first batch takes longer
    reading, _ = seconds(engine, 1)
    whole, before = seconds(engine, scale.written)
    model, gpu = Architecture.of(scale.facts), card.known(scale.device)
    operations = sum(
        model.forward(words, model.image_tokens(pixels))
        for pixels, words in scale.sizes(scale.asked)
    )
    tokens = sum(reply.tokens or 0 for reply in before)
    # At a tiny size the one may take as long as the other.
    speed = tokens / (whole - reading) if whole > reading else None
    found: dict[str, Any] = {
        "samples": len(requests),
        "batch": engine.batch_size,
        "tokens a reply at most": scale.written,
        "samples a second": len(requests) / whole,
        "tokens a second": speed,
        "seconds from the process's start to an engine": opened,
        "seconds of reading": reading,
        "gib at most": memory(scale.device)["most"],
        "assumed now": {
            "start": ASSUMED.start,
            "use_prefill": ASSUMED.use_prefill,
            "decode / transformers": ASSUMED.decode / ASSUMED.transformers,
        },
        "constants": {
            "start": opened,
            # Pictures are decoded and cut into patches meanwhile.
            "use_prefill": operations / reading / gpu.peak,
            "decode / transformers": speed and speed * model.parameters / ASSUMED.decode_weights,
        },
    }
    return {**found, "swap": swapped(place, engine, requests, before)}


def swapped(place: Place, engine: Any, requests: list[Request], before: list[Any]) -> Any:
    """Replies after a swap beside a new engine's; None where no other checkpoint is there."""
    if not (place.trained / "config.json").is_file():
        return None
    asked = requests[: place.scale.asked // 2]
    most = place.scale.written
    start = time.monotonic()
    engine.swap(place.trained)
    taken = time.monotonic() - start
    ours = engine.generate(asked, most)
    del engine.model
    start = time.monotonic()
    fresh = TransformersEngine(place.trained, device=place.scale.device)
    opened = time.monotonic() - start
    theirs = fresh.generate(asked, most)
    return {
        "replies": len(asked),
        "equal to a fresh engine's": sum(a == b for a, b in zip(ours, theirs, strict=True)),
        # Where none changed, the comparison shows nothing.
        "changed by the swap": sum(a != b for a, b in zip(ours, before, strict=False)),
        "seconds of the swap": taken,
        "seconds of a fresh engine": opened,
    }
