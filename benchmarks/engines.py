"""Which engine answers and writes rollouts sooner on a CPU, by the size of the model.

Models of nano's kind: nano's base, and one of 119 million random weights, which never ends a reply.

* **ours**: the engine ``transformers``, and RFT's own rollouts, on the quick path;
* **stock**: the same without the quick path, as it is for models that have none;
* **vllm**, and **vllm eager**, which does not compile: vLLM's CPU build; rollouts are always eager.

Each measurement is a process of its own with one thread, and what counts is its processor time,
because the machine may have something else to do. *Answers* are the seconds from the questions,
with a picture each, to the last reply, the engine being open and warm. *Rollouts* are those of the
first step of RFT, 8 to each prompt: with vLLM, the weights that it is given are in them. Nothing is
learned from them: random weights write image tokens, which a loss refuses.

    .venv-peers/bin/python -m benchmarks.engines --out benchmarks/results/engines.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from cpt_bench import environment
from cpt_bench.files import write_text

QUESTIONS, TASK = 32, "scene"
PROMPTS, ROLLOUTS = 4, 8
LENGTHS = (20, 64)
WORK = {"answers": ("ours", "stock", "vllm", "vllm eager"), "rollouts": ("ours", "stock", "vllm")}
LARGE = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 24, "num_key_value_heads": 8, "initializer_range": 0.02,
}  # fmt: skip
EYES = {"depth": 6, "hidden_size": 384, "intermediate_size": 1024, "num_heads": 6}


def make_large(folder: Path) -> int:
    """A model of nano's kind with random weights; returns how many."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from benchmarks.questions import SUITE

    base = SUITE.base_path()
    shutil.copytree(base, folder)
    config = Qwen2_5_VLConfig.from_pretrained(base)
    text, vision = config.text_config, config.vision_config
    for part, sizes in ((text, LARGE), (vision, EYES)):
        for name, value in sizes.items():
            setattr(part, name, value)
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    vision.out_hidden_size = text.hidden_size
    vision.fullatt_block_indexes = list(range(vision.depth))
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    return int(model.num_parameters())


@contextlib.contextmanager
def path_of(engine: str) -> Iterator[None]:
    from benchmarks.steps import stock

    with stock() if engine == "stock" else contextlib.nullcontext():
        yield


def answers(model: Path, engine: str, new: int) -> dict[str, Any]:
    """Seconds to answer all questions, tokens written, and seconds until the engine was open."""
    from benchmarks.questions import requests
    from cpt_bench.engines import open_engine

    asked = requests(TASK)[:QUESTIONS]
    start = time.process_time()
    name, settings = ("vllm", {"eager": "eager" in engine}) if "vllm" in engine else ("", {})
    opened: Any = open_engine(name or "transformers", model, **settings)
    opened.generate(asked[:8], new)
    ready = time.process_time()
    replies = opened.generate(asked, new)
    return {
        "seconds": time.process_time() - ready,
        "open": ready - start,
        "tokens": sum(reply.tokens for reply in replies),
    }


class _WrittenError(Exception):
    """Raised to end a stage when its first rollouts are written."""


def rollouts(model: Path, engine: str, new: int) -> dict[str, Any]:
    """Seconds of a step's rollouts."""
    from benchmarks.questions import SUITE
    from cpt_bench.stage.document import Grading, MemoryPlace, StageDocument, open_stage
    from cpt_bench.stage.split import write_split
    from cpt_bench.trainer import Privileges
    from cpt_bench.trainers import log
    from cpt_bench.trainers.rft import RFT

    def end(self: Any, *error: object) -> None:
        if error[0] is None:
            raise _WrittenError(time.process_time() - self.start)

    card = SUITE.card(TASK)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in ("out", "state", "memory"):
            (folder / part).mkdir()
        write_split(card, SUITE.protocol, PROMPTS, folder / "data")
        grading = Grading(
            cards={TASK: card}, form=SUITE.protocol.form, weights=SUITE.protocol.reward
        )
        StageDocument(
            index=1, task=TASK, policy=model, data=(folder / "data/train.jsonl",),
            output=folder / "out", state=folder / "state", seed=1, threads=1, max_new_tokens=new,
            memory=MemoryPlace(folder=folder / "memory", samples_per_task=0), config={},
            log=folder / "log.jsonl", privileges=Privileges(), grading=grading,
        ).write(folder / "stage.json")  # fmt: skip
        stage = open_stage(folder / "stage.json")
        settings = {"learning_rate": 1e-5, "max_steps": 1, "prompts_per_step": PROMPTS}
        settings |= {"rollouts": ROLLOUTS, "device": "cpu", "self_check": 0}
        clock = SimpleNamespace(monotonic=time.process_time)
        with (
            mock.patch.object(log, "time", clock),
            mock.patch.object(log.Stopwatch, "__exit__", end),
        ):
            try:
                RFT(RFT.Config(**settings, use_vllm=engine == "vllm")).train(stage)
            except _WrittenError as written:
                return {"seconds": written.args[0]}
    raise AssertionError("no rollouts were written")


def measured(what: str, model: Path, engine: str, new: int) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    surroundings = {
        "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "benchmarks.engines", "--one",
        json.dumps([what, str(model), engine, new]),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, **surroundings}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{what} {engine}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(what: str, model: str, engine: str, new: int) -> None:
    """Measure, in this process, and print."""
    from cpt_bench.worker.threads import set_threads

    set_threads(1)
    with path_of(engine):
        found = {"answers": answers, "rollouts": rollouts}[what](Path(model), engine, new)
    print(json.dumps({key: round(value, 3) for key, value in found.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", default=",".join(WORK))
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="tokens of a reply")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the result here, adding to what is there")
    args = parser.parse_args()
    if args.one:
        return one(*json.loads(args.one))
    from benchmarks.questions import SUITE

    known = args.out is not None and args.out.is_file()
    raw = json.loads(args.out.read_text())["raw"] if known else []
    lengths = [int(new) for new in args.lengths.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        large = Path(scratch) / "large"
        weights = make_large(large)
        models = {"nano": SUITE.base_path(), f"{weights / 1e6:.0f} M": large}
        todo = [
            (what, model, engine, new)
            for what in args.work.split(",")
            for model in models
            for new in (lengths if model != "nano" else lengths[:1])
            for engine in WORK[what]
        ]
        for turn in range(args.rounds):
            for what, model, engine, new in todo:
                found = measured(what, models[model], engine, new)
                keys = {"what": what, "model": model, "new": new, "engine": engine}
                raw.append({**keys, "round": turn + 1, **found})
                print(json.dumps(raw[-1]), file=sys.stderr, flush=True)
    text = json.dumps(
        {
            "benchmark": "engines", "weights": weights, "questions": QUESTIONS,
            "prompts": PROMPTS, "rollouts": ROLLOUTS, "summary": summary(raw), "raw": raw,
            "machine": environment.hardware(),
        },
        indent=2,
    )  # fmt: skip
    print(text)
    if args.out:
        write_text(args.out, text + "\n")


def summary(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each kind of work, the median seconds of each engine over the rounds."""
    kinds: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for row in raw:
        kind = tuple(row[key] for key in ("what", "model", "new"))
        kinds.setdefault(kind, {}).setdefault(row["engine"], []).append(row["seconds"])
    return [
        {
            **dict(zip(("what", "model", "new"), kind, strict=True)),
            "seconds": {name: round(statistics.median(s), 2) for name, s in engines.items()},
        }
        for kind, engines in kinds.items()
    ]


if __name__ == "__main__":
    main()
