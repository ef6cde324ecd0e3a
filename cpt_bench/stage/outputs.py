"""Checks that a trainer wrote a complete checkpoint in safetensors, with finite weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from cpt_bench.errors import TrainerFault

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
"""Files that run code when they are loaded; a checkpoint is safetensors."""

TRAINER_STATE = ("training_args.bin", "optimizer*", "scheduler*", "scaler*", "rng_state*")
"""What Hugging Face trainers save to go on from; nothing here loads it."""


def set_aside(folder: Path, place: Path) -> None:
    """Move what is in ``folder`` but is not the checkpoint to ``place``.

    Hugging Face trainers save their state by default, and whole checkpoints of their own in
    subfolders (``checkpoint-500``). A checkpoint is the files at the top alone.
    """
    folders = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    states = [file for pattern in TRAINER_STATE for file in folder.glob(pattern) if file.is_file()]
    for entry in dict.fromkeys((*folders, *states)):
        place.mkdir(exist_ok=True)
        shutil.move(entry, place / entry.name)


def check_checkpoint(folder: Path, trainer: str) -> int:
    """Refuse a checkpoint that is absent, a pickle, broken, or not finite.

    Returns:
        Its number of weights.

    Raises:
        TrainerFault: One of these; the message names the file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

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
