"""One stage, in a worker process: a trainer class or a command, then a look at what it wrote.

The order names a ``stage.json`` and a view (:mod:`cpt_bench.isolation`); everything the trainer
learns of the benchmark is in that document.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt_bench import command, isolation
from cpt_bench.contract import StageDocument, open_stage
from cpt_bench.cpu import set_threads
from cpt_bench.errors import CptBenchError, PrivilegeError, TrainerFault
from cpt_bench.files import write_jsonl
from cpt_bench.plugins import Resolved, resolve
from cpt_bench.trainer import Trainer

Say = Callable[[dict[str, Any]], None]

TRAIN_LOG = "train.jsonl"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
"""Files that run code when they are loaded; a checkpoint is safetensors."""


@dataclass(frozen=True)
class TrainOrder:
    """Train one stage.

    Attributes:
        document: Its ``stage.json``.
        trainer: The trainer's spec, or ``cmd:`` and a command line.
        view: What the trainer may see.
        parameters: How many weights the base model has.
        launch: ``torchrun …`` or ``accelerate launch …``: train on several processes.
    """

    document: Path
    trainer: str
    view: isolation.View
    parameters: int
    launch: str | None = None


_watch: isolation.Watch | None = None


def isolate(order: TrainOrder) -> None:
    """Enter the order's view, while this process has no thread yet."""
    global _watch
    _watch = isolation.enter(order.view)


def train(say: Say, order: TrainOrder) -> dict[str, Any]:
    """Run the trainer on one stage.

    Returns:
        Facts for the ledger: what isolated it, seconds spent generating, parameters.

    Raises:
        TrainerFault: The trainer broke the contract; ``kind`` says how.
    """
    document = StageDocument.read(order.document)
    rows: list[dict[str, Any]] = []
    seen: list[str] = []

    def log(row: dict[str, Any]) -> None:
        rows.append(row)
        say({"kind": "train", "task": document.task, **row})

    def tell(line: str) -> None:
        say({"kind": "output", "line": line})

    trainer_class = trainer_of(order.trainer).value
    trainer = trainer_class(trainer_class.Config.model_validate(document.config))
    isolation.watch_opens(order.view, seen.append)
    set_threads(document.threads)
    stage = open_stage(order.document, log, tell)
    kept = stage.memory.ids()
    processes = 1
    try:
        if order.launch is None:
            trainer.train(stage)
        else:
            from cpt_bench import launch

            processes = launch.train(order.launch, order.trainer, stage, document.threads)
    finally:
        # Whether or not the trainer noticed, or hid, that a file was closed to it.
        seen += _watch.opened() if _watch else []
        if seen:
            raise PrivilegeError(
                f"{order.trainer} opened what it has no privilege for: {seen[0]}"
                + (f" and {len(seen) - 1} more" if len(seen) > 1 else ""),
                where=f"stage {document.index} ({document.task})",
                todo="A trainer learns from its stage alone; see docs/trainer.md",
            )
    stage.memory.check(kept)
    write_jsonl(order.document.parent / TRAIN_LOG, rows)
    parameters = check_checkpoint(document.output, order.trainer)
    extra = parameters - order.parameters
    if extra > document.privileges.extra_parameters:
        raise PrivilegeError(
            f"{order.trainer} wrote {extra} weights more than the base model has, "
            f"{document.privileges.extra_parameters} are declared",
            where=document.output,
            todo="Declare extra_parameters in the trainer's privileges",
        )
    # A hook watches this process alone, not those that a command or a launcher starts.
    elsewhere = order.launch is not None or order.trainer.startswith(command.PREFIX)
    return {
        "isolation": "namespace" if _watch else "none" if elsewhere else "audit hook",
        "parameters": parameters,
        "processes": processes,
        "generation_seconds": sum(row.get("generation_seconds", 0.0) for row in rows),
        "samples": max((row.get("samples", 0) for row in rows), default=0),
    }


def trainer_of(spec: str) -> Resolved:
    """The trainer class that ``spec`` names, a command's included.

    Raises:
        CptBenchError: There is none of that name, or it is no trainer.
    """
    if spec.startswith(command.PREFIX):
        return command.find(spec)
    found = resolve("trainers", spec)
    if not (isinstance(found.value, type) and issubclass(found.value, Trainer)):
        raise CptBenchError(f"{spec} is not a Trainer", todo="Give a subclass of it")
    return found


def check_checkpoint(folder: Path, trainer: str) -> int:
    """Refuse a checkpoint that is absent, a pickle, broken, or not finite.

    Returns:
        Its number of weights.

    Raises:
        TrainerFault: The line says which, and in which file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    # Every Hugging Face trainer leaves this one beside its weights; nobody loads it.
    (folder / "training_args.bin").unlink(missing_ok=True)
    if pickles := sorted(f for pattern in PICKLES for f in folder.rglob(pattern)):
        raise TrainerFault(
            "pickle",
            f"trainer {trainer} wrote a pickle, which runs code when it is loaded",
            where=pickles[0],
            todo="Save safetensors: model.save_pretrained(stage.output)",
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise TrainerFault(
            "no-checkpoint",
            f"trainer {trainer} wrote no *.safetensors",
            where=folder,
            todo="Write the checkpoint to stage.output: model.save_pretrained(stage.output)",
        )
    count = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    tensor = tensors.get_tensor(name)
                    count += tensor.numel()
                    if not torch.isfinite(tensor).all():
                        raise TrainerFault(
                            "not-finite",
                            f"trainer {trainer} wrote NaN or infinite weights ({name})",
                            where=file,
                            todo="Lower the learning rate",
                        )
        except (SafetensorError, OSError) as error:
            raise TrainerFault(
                "broken", f"trainer {trainer} wrote broken weights ({error})", where=file
            ) from None
    return count


def count_parameters(folder: Path) -> int:
    """The number of weights of a checkpoint, from its headers alone."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            try:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(length))
            except (struct.error, ValueError, OverflowError, MemoryError) as error:
                raise CptBenchError(f"not a safetensors file ({error})", where=file) from None
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for n in tensor["shape"]:
                    size *= n
                total += size
    return total
