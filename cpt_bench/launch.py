"""One stage's training on several processes: ``torchrun`` or ``accelerate launch`` around a worker.

The worker that would train the stage writes its order to a file and starts

    torchrun --nproc_per_node 8 -m cpt_bench.launch ORDER

whose processes train together. The first one writes the checkpoint, the state and the log as the
worker would have; what the others write goes nowhere. Figures come back as JSON lines on the first
one's standard output, the result in a file.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json, write_json

if TYPE_CHECKING:
    from cpt_bench.jobs import TrainOrder

EVENT = "\x1ecptbench "
"""Begins a line of standard output that is an event."""

Say = Callable[[dict[str, Any]], None]


def command(launch: str, order: Path) -> list[str]:
    """The launcher's command line.

    Raises:
        CptBenchError: ``launch`` is no launcher this can follow.
    """
    words = shlex.split(launch)
    name = Path(words[0]).name if words else ""
    if name == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        if not any(w.startswith(("--master", "--rdzv", "--standalone", "--nnodes")) for w in words):
            words.insert(3, "--standalone")  # a free port: two runs on one machine
    elif name == "accelerate":
        if words[1:2] != ["launch"]:
            raise CptBenchError(f"--launch {launch!r} is not accelerate launch")
        if "--cpu" in words:
            raise CptBenchError(
                "accelerate launch --cpu runs one process whatever --num_processes says",
                where=f"--launch {launch!r}",
                todo="Use torchrun --nproc_per_node N",
            )
        words = [sys.executable, "-m", "accelerate.commands.launch", *words[2:]]
    else:
        raise CptBenchError(
            f"--launch {launch!r} begins with neither torchrun nor accelerate launch"
        )
    return [*words, "-m", "cpt_bench.launch", str(order)]


def train(say: Say, order: TrainOrder) -> dict[str, Any]:
    """Train a stage under ``order.launch``.

    Raises:
        CptBenchError: A process failed; the line is the first one's own where it has one.
    """
    assert order.launch is not None
    with tempfile.TemporaryDirectory(prefix="cptbench-launch-") as scratch:
        file = Path(scratch) / "order.json"
        write_json(file, _plain(asdict(order)))
        threads = {"OMP_NUM_THREADS": str(order.threads)}
        process = subprocess.Popen(
            command(order.launch, file),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads},
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(EVENT):
                    say(json.loads(line.removeprefix(EVENT)))
                else:
                    print(line, end="")
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()  # the launcher ends its processes
                process.wait()
        result = Path(scratch) / "result.json"
        said = read_json(result) if result.exists() else {}
        if code or "value" not in said:
            raise CptBenchError(
                said.get("error") or f"{order.launch} ended with {code}",
                where=f"stage {order.index} ({order.task})",
            )
        value: dict[str, Any] = said["value"]
        return value


def main() -> None:
    """One of the processes."""
    from cpt_bench import jobs

    file = Path(sys.argv[1])
    order = read(file)
    first = int(os.environ.get("RANK", "0")) == 0

    def say(event: dict[str, Any]) -> None:
        if first:
            print(f"{EVENT}{json.dumps(event)}", flush=True)

    try:
        with tempfile.TemporaryDirectory() as scratch:
            nowhere = Path(scratch)
            if not first:
                order = replace(
                    order,
                    output=nowhere / "output",
                    state=nowhere / "state",
                    train_log=nowhere / "log",
                    partial=True,
                )
            value = jobs.train(say, order)
    except CptBenchError as error:
        if first:
            write_json(file.with_name("result.json"), {"error": str(error)})
        raise
    if first:
        world = int(os.environ.get("WORLD_SIZE", "1"))
        write_json(file.with_name("result.json"), {"value": {**value, "processes": world}})
    _leave()


def read(file: Path) -> TrainOrder:
    """The order in ``file``, to be carried out here."""
    from cpt_bench.jobs import TrainOrder

    data = read_json(file)
    for key in PATHS:
        data[key] = Path(data[key]) if data[key] is not None else None
    return TrainOrder(**{**data, "launch": None})


PATHS = ("suite_folder", "policy", "output", "earlier_state", "state", "train_log")


def _plain(order: dict[str, Any]) -> dict[str, Any]:
    # A relative path keeps its meaning: the processes start where this one is.
    return {key: str(value) if isinstance(value, Path) else value for key, value in order.items()}


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
