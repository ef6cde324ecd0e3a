"""What it costs to start a stage: from the runner's order to the first line of the trainer.

Beside it, in the same run, what a method pays that starts a process of its own for every stage:
importing torch, transformers and trl.

python -m benchmarks.stage_start
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cpt_bench.run.context import base_policy
from cpt_bench.run.plan import Plan
from cpt_bench.run.sequencer import opened
from cpt_bench.run.splits import TrainSplits
from cpt_bench.run.train import train
from cpt_bench.stage.method import Asked, find_method
from cpt_bench.suite import open_suite
from cpt_bench.trainer import Stage, Trainer
from cpt_bench.worker.process import warm_up

IMPORTS = "import torch, transformers, trl; from trl import GRPOTrainer, SFTTrainer"


class Begin(Trainer):
    """Notes when it was called, and hands the policy on."""

    def train(self, stage: Stage) -> None:
        (stage.state / "begun").write_text(str(time.monotonic()))
        for file in stage.policy.iterdir():
            (stage.output / file.name).write_bytes(file.read_bytes())


def main(times: int = 5) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    out = parser.parse_args().out
    warm_up()
    suite = open_suite("nano")
    method = find_method(Asked(f"{__file__}:Begin", "nano"))
    starts = []
    with tempfile.TemporaryDirectory() as scratch:
        for round_ in range(times):
            plan = Plan(
                "nano", suite, method, round_, None, 1, False, "all", suite.base_path()
            )  # fmt: skip
            folder, shared = Path(scratch) / f"run{round_}", Path(scratch) / "shared"
            with opened(plan, folder, shared) as context:
                policies = {0: base_policy(plan, context.identity)}
                splits = TrainSplits(context)
                for t in plan.stages()[1:]:
                    asked = time.monotonic()
                    policies[t] = train(context, t, policies, splits)
                    begun = float((context.paths.state(t) / "begun").read_text())
                    if round_ > 0:  # the first round waits for the server and writes the splits
                        starts.append(begun - asked)
                splits.close()
    cold = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
        cold.append(time.monotonic() - start)
    result = {
        "stage_start_seconds": round(statistics.median(starts), 3),
        "slowest": round(max(starts), 3),
        "stages": len(starts),
        "imports_in_a_new_process_seconds": round(statistics.median(cold), 3),
    }
    result["ratio"] = round(statistics.median(cold) / statistics.median(starts), 1)
    print(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
