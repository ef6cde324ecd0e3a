"""A sweep on a Ray cluster of two nodes, with a worker killed: what docs/sweep.md promises."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import TINY
from tests.support.sweeps import write
from tests.support.waiting import wait_for

NUDGE = '''
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

from cpt_bench.trainer import Trainer, TrainerConfig


class Nudge(Trainer):
    """Adds seeded noise to the weights."""

    class Config(TrainerConfig):
        scale: float = 1e-3

    def train(self, stage):
        shutil.copytree(stage.policy, stage.output, dirs_exist_ok=True)
        weights = load_file(stage.policy / "model.safetensors")
        rng = np.random.default_rng([stage.seed, *stage.task.encode()])
        for name in sorted(weights):
            weights[name] = weights[name] + np.float32(self.config.scale) * rng.standard_normal(weights[name].shape).astype(np.float32)
        save_file(weights, stage.output / "model.safetensors", metadata={"format": "pt"})
'''


SWEEP = """
suite: {tiny}
base: {model}
limit: 4
seeds: [0]
orders: {{late: [science, counting, lowvision]}}
runs:
  - trainers: [./nudge.py:Nudge]
    orders: [default, {order}]
    variants: {variants}
"""


def tiny_sweep(folder: Path, model: Path, order: str = "late", variants: str = "[]") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "nudge.py").write_text(NUDGE)
    return write(folder, SWEEP.format(tiny=TINY, model=model, order=order, variants=variants))


def matrix(folder: Path) -> bytes:
    return (folder / "matrix.json").read_bytes()


def begin(file: Path, *more: str) -> subprocess.Popen[str]:
    """A sweep, as a person starts it, in the folder of its file."""
    command = [sys.executable, "-m", "cpt_bench", "sweep", str(file), "--json", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=file.parent, **pipes)  # type: ignore[call-overload,no-any-return]


def attached(runs: Path) -> list[int]:
    """The processes of runs in a folder that have trained a stage."""
    folders = {str(f.parent.parent).encode() for f in runs.glob("*/ledger/stage-1.train.json")}
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"cpt_bench.cli.attached" in words and folders & {*words}:
            found.append(int(place.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_on_two_machines_of_a_ray_cluster_with_a_worker_killed(
    tiny_model: Path, tmp_path: Path, cli: Any
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    runs = tmp_path / "runs/sweep"
    one = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=one)
    try:
        cluster.add_node(**one)
        process = begin(tiny_sweep(tmp_path, tiny_model), "--ray", cluster.address)
        run = wait_for(lambda: attached(runs))[0]
        # The Ray worker itself, which is the parent of the run's process: the run ends with it.
        worker = int(Path(f"/proc/{run}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    finally:
        cluster.shutdown()
    result = json.loads(out)
    first, late = result["runs"]
    assert (first["status"], late["status"]) == ("done", "done")
    assert first["attempts"] == 2 and "its worker was lost" in err
    assert all((tmp_path / path).stat().st_size for path in result["pages"].values())
    # The shared stage was trained once, and no weights are left.
    record = Path(late["folder"]) / "ledger/stage-1.train.json"
    assert json.loads(record.read_text())["reused"] == first["name"]
    assert not list(runs.rglob("*.safetensors"))
    # The dry run's command, alone and sharing nothing: the same bytes.
    dry = cli("sweep", tmp_path / "sweep.yaml", "--dry-run")
    assert "2 runs of 6 stages, 1 of them shared" in dry.stdout
    assert dry.stdout.count("    finished\n") == 2
    command = next(line for line in dry.stdout.splitlines() if late["name"] in line)
    alone = cli(*shlex.split(command)[1:-1], "alone", "--no-share", "--keep", "none")
    assert alone.returncode == 0, alone.stderr
    assert matrix(tmp_path / "alone") == matrix(Path(late["folder"]))
