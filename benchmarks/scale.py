"""Time and memory of metrics and report at the real suite's size.

    python benchmarks/scale.py

Seven tasks, eight stages, 5,000 test samples each, every sample with an image of its own. The run
folder is made here (not timed); then ``score`` and ``report`` each run in a process of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cpt_bench.evaluation.predictions import graded
from cpt_bench.files import write_json, write_jsonl
from cpt_bench.results.folder import RunFolder
from cpt_bench.sources import load_split, split_digest
from cpt_bench.suite import Sample, load_suite

TASKS = 7


def make(split: str, n: int, task: int) -> list[Sample]:
    """A generator of samples: a question, a word to answer with, a picture of noise."""
    rng = np.random.default_rng([task, n])
    pixels = rng.integers(0, 256, (n, 32 * 32 * 3), dtype=np.uint8)
    return [
        Sample(
            id=f"t{task}-{split}-{i:05d}",
            question=f"what is the word numbered {i}?",
            images=(b"P6 32 32 255\n" + pixels[i].tobytes(),),
            answers=(f"w{i % 50}",),
            kind="word",
        )
        for i in range(n)
    ]


def write_suite(folder: Path, n: int) -> None:
    names = [f"task{j}" for j in range(TASKS)]
    folder.mkdir(parents=True)
    for j, name in enumerate(names):
        digests = {s: split_digest(make(s, n if s == "test" else 1, j)) for s in ("train", "test")}
        write_json(folder / f"{name}.yaml", {  # JSON is YAML
            "name": name, "title": name, "description": "made up", "version": 1, "grader": "exact",
            "source": {"kind": "generator", "target": "scale:make", "options": {"task": j}},
            "splits": {"train": {"n": 1, "sha256": digests["train"]},
                       "test": {"n": n, "sha256": digests["test"]}},
            "answer_kinds": ["word"], "licence": "none",
        })  # fmt: skip
    write_json(folder / "suite.yaml", {
        "name": "scale", "title": "scale", "version": "1", "description": "made up",
        "base_model": "none", "sequence": names,
        "protocol": {
            "name": "unified", "prompts": {"neutral": "{question}"}, "style": "neutral",
            "form": {"open": "<answer>", "close": "</answer>", "thought": ["<think>", "</think>"]},
            "decoding": {"max_new_tokens": 20}, "reward": {"accuracy": 0.9, "format": 0.1},
        },
    })  # fmt: skip


def write_run(suite_folder: Path, folder: Path) -> None:
    suite = load_suite(suite_folder)
    paths, rng = RunFolder(folder, suite.sequence), np.random.default_rng(0)
    for j, name in enumerate(suite.sequence):
        card, ease = suite.card(name), rng.random(suite.card(name).splits["test"].n)
        samples = load_split(card, "test")
        for t in range(TASKS + 1):
            share = 0.3 if t <= j else 0.75 - 0.05 * (t - j - 1)
            right = ease + rng.normal(0, 0.15, len(samples)) < share
            rows = [
                {
                    "id": s.id,
                    "reply": f"<think> step {rng.integers(1e6)} </think>"
                    + suite.protocol.target(s.answers[0] if ok else "no"),
                    "tokens": 12,
                }
                for s, ok in zip(samples, right, strict=True)
            ]
            write_jsonl(paths.predictions(t, name), graded(rows, card, samples, suite.protocol))
    write_json(paths.run_json, {
        "suite": {"spec": str(suite_folder), "name": suite.name, "version": suite.version,
                  "fingerprint": suite.fingerprint()},
        "trainer": "made up", "origin": {}, "config": {}, "privileges": {}, "seed": 0,
        "order": list(suite.sequence), "limit": None, "versions": {},
    })  # fmt: skip


def measured(*args: str) -> dict[str, float]:
    """Wall, CPU and peak memory of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    env = {
        **os.environ,
        "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
    }
    subprocess.run([sys.executable, "-m", "cpt_bench", *args], check=True, env=env,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_gib": round(after.ru_maxrss / 2**20, 2),  # of the largest child so far
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5000)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as scratch:
        suite, run = Path(scratch) / "suite", Path(scratch) / "run"
        write_suite(suite, given.samples)
        write_run(suite, run)
        out = {"samples": given.samples, "score": measured("score", str(run))}
        out["report"] = measured("report", str(run))
        out["report_mb"] = round((run / "report.html").stat().st_size / 1e6, 2)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
