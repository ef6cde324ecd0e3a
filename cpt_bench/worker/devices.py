"""Which GPUs a run's training sees, and which its evaluation.

A model of seven billion weights in training leaves no room on its GPU for one that answers: the two
run side by side only where each has GPUs of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cpt_bench.errors import CptBenchError

VISIBLE = "CUDA_VISIBLE_DEVICES"

COUNTS = {
    "torchrun": ("--nproc_per_node", "--nproc-per-node"),
    "accelerate": ("--num_processes", "--num-processes"),
}
"""Launcher to its options for the number of processes."""


class Devices(NamedTuple):
    """Who computes where.

    Attributes:
        training: GPUs that training sees, as ``CUDA_VISIBLE_DEVICES`` names them; None: all.
        evaluation: Those set aside for evaluation; None: all.
    """

    training: tuple[str, ...] | None = None
    evaluation: tuple[str, ...] | None = None

    def env(self, training: bool) -> dict[str, str]:
        """What a process that trains, or that does not, has in its environment."""
        seen = self.training if training else self.evaluation
        return {} if seen is None else {VISIBLE: ",".join(seen)}


def divide(
    gpus: Sequence[str],
    processes: int | None,
    wanted: bool | None,
    cores: int,
    needed: int = 1,
) -> tuple[bool, Devices]:
    """Decide on overlap and on who sees which GPUs.

    The last GPUs are set aside for evaluation where training leaves them; without overlap nothing
    is, since either may then have all of them.

    Args:
        gpus: Those visible, as ``CUDA_VISIBLE_DEVICES`` names them.
        processes: How many processes train, each on a GPU; None: as many as there are GPUs.
        wanted: Whether overlap was asked for; None: whatever fits.
        cores: Processor cores, which decide where there is no GPU.
        needed: GPUs that an engine takes.

    Returns:
        Whether a stage is evaluated while the next one trains, and the GPUs of each.

    Raises:
        CptBenchError: Overlap was asked for, and the two would share a GPU; or the engine takes
            more GPUs than there are.
    """
    if not gpus:
        return cores > 1 if wanted is None else wanted, Devices()
    if needed > len(gpus):
        raise CptBenchError(f"the engine takes {needed} GPUs, {len(gpus)} visible")
    trained = len(gpus) if processes is None else processes
    if trained + needed > len(gpus):
        if wanted:
            raise CptBenchError(
                f"evaluation would share a GPU with training: {len(gpus)} visible, training takes "
                f"{trained} and evaluation {needed}",
                where="--overlap",
                todo=f"Leave it out, make more GPUs visible, or none ({VISIBLE}=)",
            )
        return False, Devices()
    if wanted is False:
        return False, Devices()
    return True, Devices(tuple(gpus[:-needed]), tuple(gpus[-needed:]))


def visible() -> tuple[str, ...]:
    """The GPUs that this process may use, without torch being imported."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        found: list[str] = []
        for name in (part.strip() for part in named.split(",")):
            if not name or name.startswith("-"):
                break  # CUDA too sees none behind what is no GPU
            found.append(name)
        return tuple(found)
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return tuple(str(i) for i in range(len(lines)))


def processes(launch: str | None) -> int | None:
    """How many processes ``--launch`` starts on this machine; None: as many as there are GPUs."""
    if launch is None:
        return 1
    words = shlex.split(launch)
    name = Path(words[0]).name if words else ""
    if any(word.partition("=")[0] in ("--gpu_ids", "--gpu-ids") for word in words):
        return None  # it chooses GPUs by itself, among all
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option in COUNTS.get(name, ()):
            number = value or following
            return int(number) if number.isdigit() else None  # "gpu", "auto"
    return 1 if name == "torchrun" else None  # accelerate's own file may say anything
