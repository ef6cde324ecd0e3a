"""Whole sweeps: on this machine, and on a Ray cluster of two nodes with a worker killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from tests.support.places import TINY
from tests.support.sweeps import write

slow = pytest.mark.slow


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


def wait_for(what: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


@slow
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


def test_no_cluster_is_one_line() -> None:
    pytest.importorskip("ray")
    from cpt_bench.sweep.backends import Ray
    from cpt_bench.sweep.spec import Resources

    with pytest.raises(CptBenchError, match="no Ray cluster answers"):
        Ray("127.0.0.1:1", Resources())


# ------------------------------------------------------------------------------- this machine


SCRIPTS = {
    "fine": "print('well')",
    "says": "import sys; print('cptbench: no idea', file=sys.stderr); sys.exit(2)",
    "lost": "import sys; print('cptbench: the process was killed', file=sys.stderr); sys.exit(75)",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "long": "import threading, time; from cpt_bench.cli.attached import _end_with_parent; "
    "threading.Thread(target=_end_with_parent, daemon=True).start(); time.sleep(60)",
}


def test_a_run_decides_on_overlap_where_it_is(tmp_path: Path) -> None:
    """On a machine with one GPU ``--overlap`` by hand is refused."""
    from cpt_bench.sweep import backends

    job: Any = SimpleNamespace(arguments=("run",), name="a", folder=tmp_path / "a")
    assert backends.order(job, "all", overlap=True).command[3:] == ("run", "--keep", "all")
    assert backends.order(job, "all", overlap=False).command[-1] == "--no-overlap"


def test_local_workers_tell_lost_from_failed_and_end_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from cpt_bench.sweep import backends

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    def order(job: Any, keep: str, overlap: bool) -> Any:
        command = (sys.executable, "-c", SCRIPTS[job.name])
        return backends.Order(command, str(tmp_path / f"{job.name}.log"), str(tmp_path), {})

    monkeypatch.setattr(backends, "order", order)
    local = backends.Local(5, overlap=False)
    for name in SCRIPTS:
        local.start(Named(name), "none")  # type: ignore[arg-type]
    ended: dict[str, Any] = {}
    wait_for(lambda: ended.update({e.name: e for e in local.wait(0.1)}) or len(ended) == 4, 60)
    assert ended["fine"].status == "done"
    assert ended["says"][1:] == ("failed", "cptbench: no idea")
    assert ended["lost"][1:] == ("lost", "cptbench: the process was killed")
    assert ended["killed"].status == "lost" and "-9" in ended["killed"].why
    (process, _), *_ = local.running.values()
    local.stop()
    assert process.returncode == -signal.SIGKILL and not local.running
