"""A sweep of 24 nano runs: one by one, with one Ray worker, and with two, one of them killed.

Each part is a command of its own, because each takes long; what it found is kept in ``--out``::

    python benchmarks/sweep.py alone      # cptbench run, one after the other, sharing nothing
    python benchmarks/sweep.py one        # a cluster of one worker
    python benchmarks/sweep.py two        # a cluster of two; nobody is killed, this is the time
    python benchmarks/sweep.py killed     # a cluster of two; one worker is killed on the way
    python benchmarks/sweep.py say        # times, and whether all matrices are the same

``--limit`` and ``--steps`` make the runs smaller; ``--runs`` takes fewer of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SWEEP = """\
suite: nano
limit: {limit}
keep: none
seeds: [0, 1, 2, 3]
orders:
  late: [science, text, lowvision, counting, pathology, geometry, scene]
runs:
  - trainers: [sft]
    learning_rates: [1e-4, 3e-4]
    set: {{max_steps: {steps}}}
    orders: [default, late]
  - trainers: [rft]
    learning_rates: [1e-4, 2e-4]
    set: {{max_steps: {steps}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["alone", "one", "two", "killed", "say"])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-sweep"))
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--runs", type=int, default=24)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = (args.out / "sweep.yaml").resolve()
    file.write_text(SWEEP.format(limit=args.limit, steps=args.steps))
    if args.part == "say":
        say(args.out)
        return
    folder = args.out / args.part
    start = time.monotonic()
    lost = one_by_one(file, folder, args.runs) if args.part == "alone" else on_ray(
        file, folder, args.runs, 1 if args.part == "one" else 2, args.part == "killed"
    )  # fmt: skip
    result = {"seconds": round(time.monotonic() - start, 1), "started_again": lost}
    (args.out / f"{args.part}.json").write_text(json.dumps(result))
    print(args.part, result)


def cptbench(*words: object) -> list[str]:
    return [sys.executable, "-m", "cpt_bench", *map(str, words)]


def one_by_one(file: Path, folder: Path, runs: int) -> int:
    dry = subprocess.run(
        cptbench("sweep", file, "--out", folder, "--first", runs, "--dry-run"),
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for line in dry.stdout.splitlines():
        if line.startswith("cptbench run"):
            words = shlex.split(line)[1:]
            subprocess.run(
                cptbench(*words, "--no-share", "--no-overlap", "--keep", "none"),
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
    return 0


def on_ray(file: Path, folder: Path, runs: int, workers: int, kill: bool) -> int:
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=one)
    for _ in range(workers - 1):
        cluster.add_node(**one)
    if kill:
        threading.Thread(target=kill_a_worker, args=(folder.resolve(),), daemon=True).start()
    try:
        done = subprocess.run(
            cptbench("sweep", file, "--out", folder, "--first", runs, "--ray", cluster.address,
                     "--json"),
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        cluster.shutdown()
    return sum(row["attempts"] - 1 for row in json.loads(done.stdout)["runs"])


def kill_a_worker(folder: Path) -> None:
    """SIGKILL the Ray worker of a run that has trained three stages, as soon as there is one."""
    while True:
        time.sleep(0.2)
        for record in folder.glob("*/ledger/stage-3.train.json"):
            run = str(record.parent.parent).encode()
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = place.read_bytes().split(b"\0")
                    parent = (place.parent / "stat").read_text().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                if b"cpt_bench.cli.attached" in words and run in words:
                    os.kill(int(parent), signal.SIGKILL)
                    return


def say(out: Path) -> None:
    parts = [p for p in ("alone", "one", "two", "killed") if (out / f"{p}.json").is_file()]
    found = {part: json.loads((out / f"{part}.json").read_text()) for part in parts}
    matrices = {
        part: {f.parent.name: f.read_bytes() for f in (out / part).glob("*/matrix.json")}
        for part in found
    }
    for part, result in found.items():
        same = all(m == matrices[part] for m in matrices.values())
        print(
            f"{part:7} {result['seconds']:8.1f} s  {len(matrices[part])} runs, "
            f"started again: {result['started_again']}, "
            f"matrices {'the same' if same else 'DIFFER'}"
        )
    if {"one", "two"} <= found.keys():
        ratio = found["one"]["seconds"] / found["two"]["seconds"]
        print(f"two workers are {ratio:.2f} times as fast as one")


if __name__ == "__main__":
    main()
