"""A stage on drawn samples of given sizes, trained by a trainer that ships, and measured."""

from __future__ import annotations

import contextlib
import io
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.gpu.scale import Place
from cpt_bench.advice.estimate import GIB
from cpt_bench.files import write_jsonl
from cpt_bench.sources import load_split
from cpt_bench.stage.document import Grading, MemoryPlace, StageDocument, open_stage
from cpt_bench.stage.recipes import configure, named
from cpt_bench.stage.split import row_of
from cpt_bench.stage.trainers import trainer_of
from cpt_bench.suite import Sample, open_suite
from cpt_bench.trainer import Privileges, Stage

TASK = "scene"
"""The task of nano that answers and their grader come from."""
HERE: Mapping[str, Any] = {"use_vllm": False, "sharding": "none", "attention": "sdpa"}
"""Settings that the machine asks for: one GPU, and no vLLM."""


TOKENS = "num_tokens"
"""What TRL calls the tokens that it has read and written so far, pictures' among them."""


class EnoughError(Exception):
    """The steps that are measured are done."""


def drawn(place: Place, count: int) -> list[Sample]:
    """Questions of drawn sizes: nano's, made longer, with a picture of noise each."""
    from PIL import Image

    scale, suite = place.scale, open_suite("nano")
    draw = random.Random(0)
    found = []
    samples = load_split(suite.card(TASK), "train")
    for i, (pixels, words) in enumerate(scale.sizes(count)):
        sample, side = samples[i % len(samples)], round(pixels**0.5)
        # Squares of noise, eight pixels wide: noise in each pixel takes megabytes.
        small = Image.frombytes("RGB", (side // 8, side // 8), draw.randbytes(3 * (side // 8) ** 2))
        file = io.BytesIO()
        small.resize((side, side), Image.Resampling.NEAREST).save(file, "PNG")
        # Nano's words are a token each.
        more = " ".join(draw.choices(("red", "blue", "circle", "left", "above", "is"), k=words))
        question = " ".join(f"{sample.question} {more}".split()[:words])
        changes = {"id": f"{i}", "question": question, "images": (file.getvalue(),)}
        found.append(sample.model_copy(update=changes))
    return found


def stage(
    place: Place,
    policy: Path,
    index: int,
    stored: Path | None,
    log: Callable[[dict[str, Any]], None],
) -> Stage:
    """The stage on disk, as runs lay it out."""
    suite = open_suite("nano")
    card, folder = suite.card(TASK), place.own / "stage"
    for part in ("out", "state", "memory", "data"):
        (folder / part).mkdir(parents=True)
    for file in stored.iterdir() if stored else ():
        (folder / "state" / file.name).symlink_to(file)
    data = folder / "data/train.jsonl"
    samples = drawn(place, place.scale.samples)
    write_jsonl(data, [row_of(s, card, suite.protocol, data.parent) for s in samples])
    StageDocument(
        index=index,
        task=TASK,
        policy=policy,
        data=(data,),
        output=folder / "out",
        state=folder / "state",
        memory=MemoryPlace(folder=folder / "memory", samples_per_task=0),
        log=folder / "log.jsonl",
        seed=1,
        threads=1,
        max_new_tokens=place.scale.written,
        config={},
        privileges=Privileges(),
        grading=Grading(
            cards={TASK: card}, form=suite.protocol.form, weights=suite.protocol.reward
        ),
    ).write(folder / "stage.json")
    return open_stage(folder / "stage.json", log)


def settings_of(place: Place, trainer: str, recipe: str, changes: Mapping[str, Any]) -> Any:
    """The trainer's config: its recipe, what the machine asks for, ``changes``, the scale's."""
    kind = trainer_of(trainer).value
    wanted = {**HERE, "max_steps": place.scale.steps, **changes, **place.scale.settings}
    wanted["device"] = place.scale.device
    known = kind.Config.model_fields
    over = {key: value for key, value in wanted.items() if key in known}
    return configure(kind, {**named(recipe), **over}, ())


def train(
    place: Place,
    trainer: str,
    config: Any,
    *,
    policy: Path | None = None,
    index: int = 1,
    stored: Path | None = None,
    between: Callable[[int], None] = lambda step: None,
    end: bool = True,
) -> dict[str, Any]:
    """Train a stage; what its steps took, and the most memory.

    Args:
        place: Where.
        trainer: Its name.
        config: Its settings.
        policy: The checkpoint to start from; by default part ``model``'s.
        index: Of the stage: some methods do more from the second on.
        stored: The state of the stage before.
        between: Called after each step.
        end: Whether the stage comes to its end, and writes a checkpoint; else its steps are all.
    """
    rows: list[dict[str, Any]] = []
    times: list[float] = []
    held: list[dict[str, float]] = []

    def log(row: dict[str, Any]) -> None:
        synchronize(place.scale.device)
        rows.append(row)
        times.append(time.monotonic())
        held.append(memory(place.scale.device))
        # What is left of a part that is ended.
        print(
            f"step {len(rows)}: {times[-1] - begun:.2f} s, {held[-1]}", file=sys.stderr, flush=True
        )
        between(len(rows))
        if not end and len(rows) == config.max_steps:
            raise EnoughError

    opened = stage(place, policy or place.model, index, stored, log)
    begun = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(EnoughError):
        trainer_of(trainer).value(config).train(opened)
    ended = time.monotonic()
    taken = [b - a for a, b in pairwise(times)]
    # Rollouts are written in some steps for several.
    rollouts = [row.get("generation_seconds", 0.0) for row in rows[1:]]
    return {
        "settings": config.model_dump(mode="json", exclude_defaults=True),
        "steps": len(rows),
        "seconds a step, rollouts left out": statistics.mean(
            a - b for a, b in zip(taken, rollouts, strict=True)
        ),
        "seconds of each step after the first": taken,
        "seconds to the end of the first step": times[0] - begun,
        "seconds of the stage's end": ended - times[-1] if end else None,
        "gib held after a step": held[-1]["held"],
        "gib at most in steps": held[-1]["most"],
        "tokens of all steps": rows[-1].get(TOKENS),
        "gib at most": memory(place.scale.device)["most"],
        "gib reserved at most": memory(place.scale.device)["reserved"],
        "gib of main memory at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "log": rows,
    }


def synchronize(device: str) -> None:
    """Wait until the GPU has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def memory(device: str) -> dict[str, float]:
    """GiB of tensors now and at most; on a CPU the process's own."""
    if device == "cuda":
        import torch

        return {
            "held": torch.cuda.memory_allocated() / GIB,
            "most": torch.cuda.max_memory_allocated() / GIB,
            "reserved": torch.cuda.max_memory_reserved() / GIB,
        }
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"held": most, "most": most, "reserved": most}
