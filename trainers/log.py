"""From TRL's log to the stage's: one row of figures for each step."""

from __future__ import annotations

import math
import time
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from cpt_bench.trainer import Stage
from cpt_bench.trainers.config import processes


class StageLog(TrainerCallback):  # type: ignore[misc]
    """Passes the figures of each step on to ``stage.log``.

    Args:
        stage: The stage.
        batch: Prompts in a batch of one process.
    """

    def __init__(self, stage: Stage, batch: int) -> None:
        self.stage, self.batch = stage, batch
        self.generation_seconds = 0.0
        self.figures: dict[str, float] = {}
        """More figures for the next row."""
        self.asked = 0
        """Prompts that the policy answered so that a method could choose what to learn from."""
        self.rows: list[dict[str, Any]] = []
        """The figures of the steps so far."""

    def again(self, row: dict[str, Any]) -> None:
        """Log the figures of a step, made now or by an interrupted try."""
        self.rows.append(row)
        self.stage.log(row)

    def log_asked(self, chosen: int) -> None:
        """Log, as step 0, how many prompts were asked and how many samples were chosen."""
        row: dict[str, Any] = {"step": 0, "steps": 0, "samples": self.asked}
        row |= {"asked": self.asked, "kept": chosen}
        self.stage.log({**row, "generation_seconds": round(self.generation_seconds, 4)})
        self.generation_seconds = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        figures = {key: _number(value) for key, value in (logs or {}).items()}
        if "train_runtime" in figures:  # the summary at the end
            return
        # RFT draws the prompts of several steps at a time.
        at_once = getattr(args, "steps_per_generation", None) or args.gradient_accumulation_steps
        batches = math.ceil(state.global_step * args.gradient_accumulation_steps / at_once)
        drawn = batches * at_once * self.batch * processes() + self.asked
        row = {"step": state.global_step, "steps": state.max_steps, "samples": drawn}
        row |= {key: value for key, value in figures.items() if value is not None} | self.figures
        self.figures = {}
        if self.generation_seconds:
            row["generation_seconds"] = round(self.generation_seconds, 4)
            self.generation_seconds = 0.0
        self.again(row)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def replace_printing(trainer: Any, log: StageLog) -> None:
    """Make ``trainer`` log to ``log`` instead of printing."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(log)


class Stopwatch:
    """Adds the seconds spent inside a ``with`` block to a log's generation time."""

    def __init__(self, log: StageLog) -> None:
        self.log = log

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.log.generation_seconds += time.monotonic() - self.start
