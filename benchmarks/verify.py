"""How long `cptbench verify` takes, and how much memory, for a large entry on one core.

    python -m benchmarks.verify make FOLDER [SAMPLES] [SEEDS]   # writes a suite and an entry of it
    /usr/bin/time -v taskset -c 0 cptbench verify FOLDER/b --suite FOLDER/suite

The entry has 7 tasks and a probe, 8 stages, 5,000 predictions a cell and 3 seeds. Its answers come
from a coin; its suite from the arithmetic below, so that making gold costs little beside verifying.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

import yaml

from cpt_bench.files import write_json
from cpt_bench.leaderboard.pack import About, pack
from cpt_bench.suite import Sample
from cpt_bench.tasks.nano.publish import publish

TASKS = ("sum", "difference", "product", "letter", "colour", "place", "shape")
WORDS = ("red", "green", "blue", "left", "right", "circle", "square", "triangle", "under", "above")


def make(split: str, n: int, task: str) -> list[Sample]:
    """Questions without pictures, of which gold is made quickly."""
    out = []
    for i in range(n):
        rng = random.Random(f"{task} {split} {i}")
        a, b = rng.randrange(1000), rng.randrange(1000)
        answer = str(a + b) if task in TASKS[:3] else rng.choice(WORDS)
        out.append(
            Sample(
                id=f"{task}-{split}-{i:05d}",
                question=f"What is the {task} of {a} and {b}?",
                answers=(answer,),
                kind="number" if answer.isdigit() else "word",
            )
        )
    return out


def build(folder: Path, samples: int, seeds: int) -> None:
    from tests.support.entries import make as maker

    suite = folder / "suite"
    shutil.rmtree(folder, ignore_errors=True)
    suite.mkdir(parents=True)
    for name in (*TASKS, "probe"):
        card = {
            "name": name, "title": name, "description": "arithmetic", "version": 1,
            "source": {
                "kind": "generator", "target": "benchmarks.verify:make", "options": {"task": name},
            },
            "grader": "by-kind", "answer_kinds": ["number", "word"], "licence": "Apache-2.0",
        }  # fmt: skip
        zero = "a" * 64
        splits = f"splits:\n  train: {{n: 10, sha256: {zero}}}\n"
        splits += f"  test: {{n: {samples}, sha256: {zero}}}\n"
        (suite / f"{name}.yaml").write_text(yaml.safe_dump(card) + splits)
    nano = yaml.safe_load((Path(__file__).parent.parent / "tasks/nano/suite.yaml").read_text())
    nano |= {"name": "small", "sequence": [*TASKS], "general": ["probe"]}
    (suite / "suite.yaml").write_text(yaml.safe_dump(nano, sort_keys=False))
    publish(suite)
    maker.TASKS, maker.GENERAL, maker.N = TASKS, ("probe",), samples
    scores = {
        name: {"accuracy": round(100 * sum(maker.base_right(name)) / samples, 6), "n": samples}
        for name in (*TASKS, "probe")
    }
    row = {"model": "small-base", "weights": maker.BASE, "scores": scores}
    write_json(suite / "base_row.json", row)
    runs = []
    for seed in range(seeds):
        runs.append(maker.make_run(folder / f"run{seed}", suite, seed))
        print(f"run {seed}")
    entry = pack(runs, About("Coin", ("nobody",), notes="made up", date="2026-11-22"), folder / "b")
    for run in runs:
        shutil.rmtree(run)
    print(entry, sum(f.stat().st_size for f in entry.rglob("*") if f.is_file()), "bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("make", choices=["make"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("samples", type=int, nargs="?", default=5000)
    parser.add_argument("seeds", type=int, nargs="?", default=3)
    asked = parser.parse_args()
    build(asked.folder.absolute(), asked.samples, asked.seeds)
