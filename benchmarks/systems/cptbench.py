"""cptbench's own engine, as its runs have it."""

from __future__ import annotations

import functools
import gc
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.systems import WARM_UP, Clock, Place, serve
from cpt_bench.cpu import set_threads
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine


def forget() -> None:
    """Empty cptbench's caches, as if the questions had not been asked in the round before."""
    for thing in gc.get_objects():
        if isinstance(thing, functools._lru_cache_wrapper) and "cpt_bench" in str(thing.__module__):
            thing.cache_clear()


class CptBench:
    """The engine ``transformers``."""

    def __init__(self, place: Place) -> None:
        set_threads(1)
        self.place = place
        self.engine = TransformersEngine(place.model, device="cpu")
        self.about = {name: version(name) for name in ("cptbench", "torch", "transformers")}
        self.about["attention"] = self.engine.model.config._attn_implementation
        self.answer(WARM_UP, self.engine.batch_size)

    def answer(self, task: str, batch: int) -> dict[str, Any]:
        asked = [
            Request(str(i), q["prompt"], [Path(file).read_bytes() for file in q["images"]])
            for i, q in enumerate(self.place.asked(task))
        ]
        self.engine.batch_size = batch
        forget()
        clock = Clock()
        with clock.running():
            replies = self.engine.generate(asked, self.place.new)
        return {**clock.said, "replies": [reply.text for reply in replies]}


if __name__ == "__main__":
    serve(CptBench)
