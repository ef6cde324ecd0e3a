"""Which GPUs training sees, and which evaluation sees.

Training a model of seven billion weights leaves no room on its GPU for a second model that answers
questions: training and evaluation overlap only where each has its own GPUs.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cpt_bench import environment
from cpt_bench.errors import CptBenchError

VISIBLE = "CUDA_VISIBLE_DEVICES"

COUNTS = {
    "torchrun": ("--nproc_per_node", "--nproc-per-node"),
    "accelerate": ("--num_processes", "--num-processes"),
}
"""Launcher to its options for the number of processes."""


class Devices(NamedTuple):
    """The GPUs of training and of evaluation.

    Attributes:
        training: GPUs that training sees, as ``CUDA_VISIBLE_DEVICES`` names them; None: all.
        evaluation: GPUs reserved for evaluation; None: all.
    """

    training: tuple[str, ...] | None = None
    evaluation: tuple[str, ...] | None = None

    def env(self, training: bool) -> dict[str, str]:
        """The environment variables of a process that trains, or of one that evaluates."""
        seen = self.training if training else self.evaluation
        return {} if seen is None else {VISIBLE: ",".join(seen)}


def divide(
    gpus: Sequence[str],
    processes: int | None,
    wanted: bool | None,
    cores: int,
    needed: int = 1,
) -> tuple[bool, Devices]:
    """Decide on overlap, and which GPUs training and evaluation see.

    The last GPUs are reserved for evaluation if training does not need them. Without overlap none
    are reserved, since each may then use all of them.

    Args:
        gpus: The visible GPUs, as ``CUDA_VISIBLE_DEVICES`` names them.
        processes: How many processes train, each on one GPU; None: as many as there are GPUs.
        wanted: Whether the user asked for overlap; None: whatever fits.
        cores: CPU cores, which decide if there is no GPU.
        needed: GPUs that the engine needs.

    Returns:
        Whether a stage is evaluated while the next one trains, and the GPUs of each.

    Raises:
        CptBenchError: Overlap was requested but the two would share a GPU; or the engine needs
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
    """The GPUs that this process may use, found without importing torch."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        found: list[str] = []
        for name in (part.strip() for part in named.split(",")):
            if not name or name.startswith("-"):
                break  # like CUDA, ignore everything after an invalid entry
            found.append(name)
        return tuple(found)
    return tuple(str(i) for i in range(environment.count_gpus()))


def processes(launch: str | None) -> int | None:
    """How many processes ``--launch`` starts on this machine; None: as many as there are GPUs."""
    if launch is None:
        return 1
    words = shlex.split(launch)
    name = Path(words[0]).name if words else ""
    if any(word.partition("=")[0] in ("--gpu_ids", "--gpu-ids") for word in words):
        return None  # accelerate chooses among all GPUs itself
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option in COUNTS.get(name, ()):
            number = value or following
            return int(number) if number.isdigit() else None  # "gpu", "auto"
    return 1 if name == "torchrun" else None  # accelerate's own config file may set any number
