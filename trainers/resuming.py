"""A stage that was interrupted goes on inside: what is saved on the way, and how it is found again.

Every ``stage.save_every`` steps transformers saves weights, optimiser, schedule and random states
in ``stage.resume``. Added here are the training figures until then, and a mark that it is whole: a
process that is killed while it saves leaves a folder without one. The steps that follow are those
of a stage that was never interrupted, bit for bit in one process.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from cpt_bench.files import read_json, write_json
from cpt_bench.trainer import Stage

WHOLE = "cptbench.json"
"""The last file of a saved state: the training figures until then, and counts of TRL's own."""

COUNTS = ("_total_train_tokens",)
"""What TRL's trainers count, and transformers does not save."""


def saving(stage: Stage, together: int) -> dict[str, Any]:
    """Transformers' arguments to save on the way; empty where that is not asked for.

    Args:
        stage: The stage.
        together: Steps whose prompts are drawn together: a state is saved between such groups.
    """
    if stage.save_every is None or stage.resume is None:
        return {}
    return {
        "output_dir": str(stage.resume),
        "save_strategy": "steps",
        "save_steps": math.ceil(stage.save_every / together) * together,
        "save_total_limit": 1,
    }


def saved(stage: Stage) -> Path | None:
    """The last state that was saved whole; None: the stage begins at its beginning."""
    if stage.resume is None:
        return None
    whole = [file.parent for file in stage.resume.glob(f"checkpoint-*/{WHOLE}")]
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    for other in stage.resume.glob("checkpoint-*"):
        if other != last:  # cut off while it was saved, or an older one that was to be removed
            shutil.rmtree(other, ignore_errors=True)
    return last


class Saver(TrainerCallback):  # type: ignore[misc]
    """Adds to each saved state what makes it whole.

    Args:
        trainer: TRL's trainer.
        log: The stage's log, which holds the figures so far.
    """

    def __init__(self, trainer: Any, log: Any) -> None:
        self.trainer, self.log = trainer, log

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()  # each process saves its random states
        if state.is_world_process_zero:
            counts = {name: getattr(self.trainer, name, None) for name in COUNTS}
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / WHOLE, {"rows": self.log.rows, "counts": counts})


def train(trainer: Any, stage: Stage, log: Any) -> None:
    """Run TRL's ``trainer`` from the last saved state, or from the beginning."""
    if stage.save_every is None:
        trainer.train()
        return
    trainer.add_callback(Saver(trainer, log))
    place = saved(stage)
    if place is None:
        trainer.train()
        return
    known = read_json(place / WHOLE)
    for row in known["rows"]:
        log.again(row)
    for name, count in known["counts"].items():
        if count is not None:
            setattr(trainer, name, count)
    stage.tell(
        f"stage {stage.index} ({stage.task}): goes on after {place.name.partition('-')[2]} steps"
    )
    trainer.train(resume_from_checkpoint=str(place))


class Resumed:
    """Mixin for TRL's trainers: a saved state is read as a checkpoint is, with its keys mapped.

    transformers writes the weights of some models under older names, and reads them back without
    mapping, with only a warning that training continues from the weights it began with
    (transformers issue 43701).
    """

    def _load_from_checkpoint(self: Any, place: str, model: Any = None) -> None:
        inner = self.accelerator.unwrap_model(self.model if model is None else model)
        split = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if split or hasattr(inner, "peft_config"):
            super()._load_from_checkpoint(place, model)  # type: ignore[misc]
            return
        whole = type(inner).from_pretrained(place, dtype=inner.dtype)
        inner.load_state_dict(whole.state_dict(), strict=True)
