"""One stage's training on several processes: ``torchrun`` or ``accelerate launch`` in a worker.

Instead of calling the trainer itself, the worker starts

    torchrun --nproc_per_node 8 -m cpt_bench.stage.rank STAGE.JSON TRAINER

whose processes open the same stage and train together. The first one writes the checkpoint, the
state, the memory and the log; what the others write is discarded. Training figures come back as
JSON lines on the first one's standard output.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.files import parsed, read_json
from cpt_bench.trainer import Stage

EVENT = "\x1ecptbench "
"""The prefix of a line of standard output that is an event."""

LONGEST = 1 << 20
"""Characters that are read at once of a line; events are shorter."""


def command(launch: str, *arguments: str) -> list[str]:
    """The launcher's command line.

    Raises:
        CptBenchError: ``launch`` is not a supported launcher.
    """
    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise CptBenchError(f"--launch {launch!r} is not a command line ({error})") from None
    name = Path(words[0]).name if words else ""
    if name == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        if not any(w.startswith(("--master", "--rdzv", "--standalone", "--nnodes")) for w in words):
            words.insert(3, "--standalone")  # a free port, so that two runs can share a machine
    elif name == "accelerate":
        if words[1:2] != ["launch"]:
            raise CptBenchError(f"--launch {launch!r} is not accelerate launch")
        if "--cpu" in words:
            raise CptBenchError(
                "accelerate launch --cpu runs one process whatever --num_processes is",
                where=f"--launch {launch!r}",
                todo="Use torchrun --nproc_per_node N",
            )
        words = [sys.executable, "-m", "accelerate.commands.launch", *words[2:]]
    else:
        raise CptBenchError(
            f"--launch {launch!r} begins with neither torchrun nor accelerate launch"
        )
    return [*words, "-m", "cpt_bench.stage.rank", *arguments]


def train(launch: str, trainer: str, stage: Stage, threads: int) -> int:
    """Train ``stage`` under ``launch``.

    Returns:
        How many processes trained.

    Raises:
        TrainerFault: A process failed; the message is the first process's own, if it gave one.
    """
    assert stage.document is not None
    result = stage.document.with_name("launch.json")
    process = subprocess.Popen(
        command(launch, str(stage.document), trainer),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    assert process.stdout is not None
    out = process.stdout
    try:
        # In pieces: a process may print without ever ending a line.
        for line in iter(lambda: out.readline(LONGEST), ""):
            if not line.startswith(EVENT):
                print(line, end="")
                continue
            kind, value = parsed(line.removeprefix(EVENT))
            (stage.log if kind == "log" else stage.tell)(value)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()  # the launcher ends its processes
            process.wait()
    outcome = read_json(result) if result.exists() else {}
    if code or "processes" not in outcome:
        raise TrainerFault(
            outcome.get("kind", "killed" if code < 0 else "crash"),
            outcome.get("error") or f"{launch} exited with {code}",
            where=f"stage {stage.index} ({stage.task})",
        )
    return int(outcome["processes"])
