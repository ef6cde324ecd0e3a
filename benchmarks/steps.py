"""What a training step and an evaluation cost beside stock TRL and transformers, and the floor.

Three columns, measured in turns in one process on nano's base and its task ``scene``:

* **stock**: TRL's GRPOTrainer and SFTTrainer, transformers' ``generate``, nothing of ours between;
* **ours**: the trainers ``rft`` and ``sft``, the engine ``transformers``;
* **floor**: the same forward, backward, optimiser and decoding work in a bare loop, inputs at hand.

    python -m benchmarks.steps --out benchmarks/results/steps.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.questions import NEW, SUITE
from benchmarks.questions import requests as asked
from cpt_bench import environment
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.files import write_text
from cpt_bench.models import checkpoint as policy
from cpt_bench.models import quick
from cpt_bench.stage.document import Grading, MemoryPlace, StageDocument, open_stage
from cpt_bench.stage.split import write_split
from cpt_bench.trainer import Privileges, Stage
from cpt_bench.trainers.answers import aligned
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.rollouts import encoded
from cpt_bench.trainers.sft import SFT
from cpt_bench.worker.threads import set_threads

STEPS, ROUNDS, TASK = 8, 3, "scene"
PROMPTS, ROLLOUTS, BATCH = 8, 8, 16


@contextlib.contextmanager
def stock() -> Iterator[None]:
    """No quick path: TRL and transformers compute everything.

    The settings of the whole process (:mod:`cpt_bench.worker.threads`) stay; both profit from them.
    """
    with mock.patch.object(quick, "package_for", lambda kind: None):
        yield


def quick_path(model: Any) -> quick.QuickModel:
    found = quick.of(model)
    assert found is not None
    return found


def stage_in(folder: Path, data: Path, log: Callable[[dict[str, Any]], None]) -> Stage:
    """A stage of the task as runs lay it out, in an empty folder."""
    for part in ("out", "state", "memory"):
        (folder / part).mkdir()
    card = SUITE.card(TASK)
    StageDocument(
        index=1,
        task=TASK,
        policy=SUITE.base_path(),
        data=(data / "train.jsonl",),
        output=folder / "out",
        state=folder / "state",
        memory=MemoryPlace(folder=folder / "memory", samples_per_task=0),
        log=folder / "log.jsonl",
        seed=1,
        threads=1,
        max_new_tokens=NEW,
        config={},
        privileges=Privileges(),
        grading=Grading(
            cards={TASK: card}, form=SUITE.protocol.form, weights=SUITE.protocol.reward
        ),
    ).write(folder / "stage.json")
    return open_stage(folder / "stage.json", log)


def trained(kind: Any, settings: dict[str, Any], data: Path) -> float:
    """Median seconds of a step of ``kind``, the first ones left out."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        stage = stage_in(Path(scratch), data, lambda row: times.append(time.monotonic()))
        kind(kind.Config(max_steps=STEPS, device="cpu", **settings)).train(stage)
    return statistics.median(b - a for a, b in pairwise(times[1:]))


def timed(work: Callable[[int], object], times: int) -> float:
    """Median seconds of ``work``, its first call left out."""
    taken = []
    for i in range(times):
        start = time.monotonic()
        work(i)
        taken.append(time.monotonic() - start)
    return statistics.median(taken[1:])


def floor_model() -> tuple[Any, Any]:
    model = policy.load_model(SUITE.base_path(), device="cpu", attention="eager").train()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def sft_floor(stage_samples: list[Any]) -> float:
    model, optimiser = floor_model()
    collate = encoded(policy.load_processor(SUITE.base_path()))
    batches = [
        aligned(collate([(s, s.target) for s in stage_samples[i * BATCH : (i + 1) * BATCH]]))
        for i in range(STEPS)
    ]

    def step(i: int) -> None:
        logps = quick_path(model).score_answers(*batches[i]).logps
        (-logps.sum() / (logps != 0).sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return timed(step, STEPS)


def rft_floor(requests: list[Request]) -> float:
    model, optimiser = floor_model()
    engine = TransformersEngine(SUITE.base_path())
    batches = [engine.encode(requests[i * PROMPTS : (i + 1) * PROMPTS]) for i in range(STEPS)]
    each = torch.arange(PROMPTS).repeat_interleave(ROLLOUTS)

    path = quick_path(model)

    def step(i: int) -> None:
        with torch.no_grad():
            reading = path.read(batches[i]).rows(each)
            written = reading.write(NEW, temperature=1.0, ends=engine.ends, padding=engine.padding)
        mask = (written != engine.padding).long()
        written = written[:, : int(mask.sum(1).max())]
        mask = mask[:, : written.shape[1]]
        logps = path.read(batches[i]).rows(each).score(written, mask, 1.0).logps
        (logps.sum(1) / mask.sum(1)).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    torch.manual_seed(0)
    return timed(step, STEPS)


def answered(requests: list[Request]) -> float:
    """Seconds to answer ``requests`` with an engine that is loaded."""
    engine = TransformersEngine(SUITE.base_path())
    engine.generate(requests[:64], NEW)
    start = time.monotonic()
    engine.generate(requests, NEW)
    return time.monotonic() - start


def answer_floor(requests: list[Request]) -> float:
    engine = TransformersEngine(SUITE.base_path())
    ordered = sorted(requests, key=lambda r: len(r.prompt))
    batches = [engine.encode(ordered[i : i + 64]) for i in range(0, len(ordered), 64)]
    path = quick_path(engine.model)
    start = time.monotonic()
    with torch.inference_mode():
        for inputs in batches:
            path.read(inputs).write(NEW, temperature=0, ends=engine.ends, padding=engine.padding)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    set_threads(1)
    card = SUITE.card(TASK)
    requests = asked(TASK)
    rft = {
        "learning_rate": 2e-4,
        "prompts_per_step": PROMPTS,
        "rollouts": ROLLOUTS,
        "self_check": 0,
    }
    sft = {"learning_rate": 3e-4, "batch_size": BATCH}
    found: dict[str, dict[str, list[float]]] = {}

    def note(row: str, column: str, seconds: float) -> None:
        found.setdefault(row, {}).setdefault(column, []).append(seconds)

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "train"
        write_split(card, SUITE.protocol, BATCH * STEPS, data)
        (Path(scratch) / "stage").mkdir()
        learned = list(stage_in(Path(scratch) / "stage", data, lambda row: None).samples)
        for _ in range(ROUNDS):
            with stock():
                note("RL step", "stock", trained(RFT, rft, data))
                note("SFT step", "stock", trained(SFT, sft, data))
                note("300 replies", "stock", answered(requests))
            note("RL step", "ours", trained(RFT, rft, data))
            note("SFT step", "ours", trained(SFT, sft, data))
            note("300 replies", "ours", answered(requests))
            note("RL step", "floor", rft_floor(requests))
            note("SFT step", "floor", sft_floor(learned))
            note("300 replies", "floor", answer_floor(requests))
    table = {}
    for row, columns in found.items():
        middle = {name: statistics.median(values) for name, values in columns.items()}
        table[row] = {
            "seconds": {name: round(value, 4) for name, value in middle.items()},
            "stock / ours": round(middle["stock"] / middle["ours"], 2),
            "ours / floor": round(middle["ours"] / middle["floor"], 2),
        }
    text = json.dumps({**environment.hardware(), "rounds": ROUNDS, **table}, indent=2) + "\n"
    print(text, end="")
    if args.out:
        write_text(args.out, text)


if __name__ == "__main__":
    main()
