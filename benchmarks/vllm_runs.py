"""RFT whose rollouts vLLM writes, against RFT that writes its own: nano, all stages, several seeds.

Other rounding draws other rollouts, so that two runs under one seed differ as two seeds do. So what
is compared are the means over seeds, of the metrics and of each cell of R after training, by
Welch's test; of many cells, one in twenty differs by chance.

    .venv-peers/bin/python -m benchmarks.vllm_runs --folder runs --out vllm-runs.json

A finished run in the folder is only read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from cpt_bench import environment
from cpt_bench.files import read_jsonl, write_text

ROLLOUTS = {"transformers": (), "vllm": ("--set", "use_vllm=true")}
METRICS = ("AvgAcc", "Learn", "FM")
CHECKS = (
    "self_check", "self_check_most", "self_check_after_sync", "self_check_after_sync_most",
)  # fmt: skip
# Two-sided 95 % points of Student's t, by degrees of freedom.
STUDENT = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def run(folder: Path, how: str, seed: int) -> dict[str, Any]:
    """A run's matrix, metrics, and the self-checks of its stages."""
    out = folder / f"{how}-{seed}"
    command = [
        sys.executable, "-m", "cpt_bench", "run", "--trainer", "rft", *ROLLOUTS[how],
        "--seed", str(seed), "--keep", "none", "--no-overlap", "--out", str(out),
    ]  # fmt: skip
    surroundings = {
        "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    with out.with_suffix(".log").open("a") as log:
        subprocess.run(
            command, check=True, env={**os.environ, **surroundings}, stdout=log, stderr=log
        )
    rows = json.loads((out / "matrix.json").read_text())["accuracy"]
    checks = []
    for log in sorted(out.glob("stages/[1-9]*/train.jsonl")):
        first = next(row for row in read_jsonl(log) if row["step"])
        checks.append({name: first.get(name) for name in CHECKS})
    return {
        "R": rows,
        "metrics": metrics_of(rows),
        "self-checks": checks,
    }


def metrics_of(rows: list[list[float]]) -> dict[str, float]:
    """AvgAcc, Learn and FM, in percent; see docs/metrics.md."""
    last = len(rows) - 1
    learned = [rows[j + 1][j] for j in range(last)]
    lost = [rows[last][j] - max(rows[t][j] for t in range(1, last)) for j in range(last - 1)]
    return {
        "AvgAcc": statistics.mean(rows[last]),
        "Learn": statistics.mean(learned),
        "FM": statistics.mean(lost),
    }


def compared(one: list[float], other: list[float]) -> dict[str, float]:
    """Means, their difference, and half the width of its 95 % interval (Welch)."""
    parts = [statistics.variance(values) / len(values) for values in (one, other)]
    error = math.sqrt(sum(parts))
    free = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True)
    ) if error else 1.0  # fmt: skip
    width = STUDENT[max(1, min(int(free), max(STUDENT)))] * error
    first, second = statistics.mean(one), statistics.mean(other)
    return {
        name: round(value, 2)
        for name, value in zip(
            ("transformers", "vllm", "difference", "within"),
            (first, second, second - first, width),
            strict=True,
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are, or will be")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict[str, Any]]] = {how: [] for how in ROLLOUTS}
    for seed in range(args.seeds):
        for how, done in runs.items():
            done.append(run(args.folder, how, seed))
    one, other = runs["transformers"], runs["vllm"]
    metrics = {
        name: compared(*([r["metrics"][name] for r in group] for group in (one, other)))
        for name in METRICS
    }
    stages, tasks = len(one[0]["R"]), len(one[0]["R"][0])
    cells = [
        compared(*([r["R"][t][j] for r in group] for group in (one, other)))
        for t in range(1, stages)
        for j in range(tasks)
    ]
    beyond = sum(abs(cell["difference"]) > cell["within"] for cell in cells)
    checks = [check for r in other for check in r["self-checks"]]
    found = {
        "benchmark": "vllm-runs",
        "seeds": args.seeds,
        "metrics": metrics,
        "cells": len(cells),
        "cells beyond their 95 % interval": beyond,
        "mean difference of cells": round(statistics.mean(c["difference"] for c in cells), 2),
        "largest difference of cells": max((c["difference"] for c in cells), key=abs),
        "log-probabilities, largest over all stages": {
            name: max(check[name] for check in checks) for name in CHECKS
        },
        "runs": runs,
        "machine": environment.hardware(),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if args.out:
        write_text(args.out, text + "\n")


if __name__ == "__main__":
    main()
