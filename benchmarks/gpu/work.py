"""One part, in a process of its own: ``python -m benchmarks.gpu.work PART SCRATCH OUT [--cpu]``."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.gpu import card
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.scale import CPU, GPU, Place
from cpt_bench.files import write_json


def main(name: str, scratch: str, out: str, *options: str) -> None:
    """Measure, and write the part's JSON."""
    part = next(part for part in PARTS if part.name == name)
    scale = CPU if "--cpu" in options else GPU
    own = Path(scratch) / name
    own.mkdir(parents=True)
    module, function = part.target.split(":")
    start = time.monotonic()
    found = getattr(import_module(f"benchmarks.gpu.{module}"), function)(
        Place(scale, Path(scratch), own)
    )
    head = {"part": name, "title": part.title, **card.facts(scale.device)}
    write_json(Path(out) / f"{name}.json", {**head, "seconds": time.monotonic() - start, **found})


if __name__ == "__main__":
    main(*sys.argv[1:])
