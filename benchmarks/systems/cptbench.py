"""cptbench's own engine, as its runs have it: a process for each core, the questions dealt out."""

from __future__ import annotations

import functools
import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.systems import WARM_UP, Clock, Place, Running, serve
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.worker.threads import set_threads


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

    def answer(self, task: str, batch: int, part: int = 0, parts: int = 1) -> dict[str, Any]:
        asked = [
            Request(str(i), q["prompt"], [Path(file).read_bytes() for file in q["images"]])
            for i, q in enumerate(self.place.asked(task)[part::parts])
        ]
        self.engine.batch_size = batch
        forget()
        clock = Clock()
        with clock.running():
            replies = self.engine.generate(asked, self.place.new)
        return {**clock.said, "replies": [reply.text for reply in replies]}


class Together:
    """Several processes of it, each with its part of the questions at the same time."""

    def __init__(self, processes: Sequence[Running]) -> None:
        self.processes = processes

    def answer(self, task: str, batch: int) -> dict[str, Any]:
        parts = len(self.processes)
        with ThreadPoolExecutor(parts) as pool:
            told = list(
                pool.map(
                    lambda i: self.processes[i].answer(task, batch, part=i, parts=parts),
                    range(parts),
                )
            )
        replies = [""] * sum(len(one["replies"]) for one in told)
        for i, one in enumerate(told):
            replies[i::parts] = one["replies"]
        return {
            "seconds": max(one["seconds"] for one in told),
            "processor": sum(one["processor"] for one in told),
            "replies": replies,
        }


if __name__ == "__main__":
    serve(CptBench)
