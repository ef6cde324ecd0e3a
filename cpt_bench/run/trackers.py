"""Experiment trackers: log a run's training figures and stage results while it runs.

They receive the run's own events here, not inside the trainer: a trainer's process reads and writes
only its stage, and a method in any language is tracked like one of TRL's. If a tracker fails, one
line is printed and the run continues without it. Nothing of this enters the ledger.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from cpt_bench.errors import CptBenchError, did_you_mean

Event = dict[str, Any]

PROJECT = "cptbench"


class Tracker(Protocol):
    """An experiment tracker that receives numbers."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Log numbers by name (``train/reward``, ``accuracy/gqa``) at a training step."""
        ...

    def close(self) -> None:
        """Flush everything that was logged, and end."""
        ...


class TensorBoard:
    """Event files under ``<run>/tensorboard``."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        writer = _module("tensorboard", "tensorboard.summary.writer.event_file_writer")
        self.events = _module("tensorboard", "tensorboard.compat.proto.event_pb2")
        self.summaries = _module("tensorboard", "tensorboard.compat.proto.summary_pb2")
        self.writer = writer.EventFileWriter(str(folder / "tensorboard"))

    def log(self, values: dict[str, float], step: int) -> None:
        parts = [self.summaries.Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        summary = self.summaries.Summary(value=parts)
        self.writer.add_event(self.events.Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self.writer.close()


class Hosted:
    """wandb, or trackio, which has the same interface: ``init``, ``log``, ``finish``."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        self.module = _module(name, name)
        self.module.init(project=PROJECT, name=folder.name, config=config)

    def log(self, values: dict[str, float], step: int) -> None:
        self.module.log(values, step=step)

    def close(self) -> None:
        self.module.finish()


KNOWN: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {
    "trackio": lambda folder, config: Hosted("trackio", folder, config),
    "wandb": lambda folder, config: Hosted("wandb", folder, config),
    "tensorboard": TensorBoard,
}


def _module(package: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CptBenchError(
            f"tracker {package!r} cannot be imported ({error})",
            todo=f"Install it with: pip install {package}",
        ) from None


def known(names: Sequence[str]) -> list[str]:
    """The names of trackers, without duplicates.

    Raises:
        CptBenchError: A name is not a known tracker.
    """
    for name in names:
        if name not in KNOWN:
            raise CptBenchError(
                f"no tracker is called {name!r}",
                where="--report-to",
                todo=did_you_mean(name, [*KNOWN]),
            )
    return list(dict.fromkeys(names))


class Reporter:
    """Passes a run's events to its trackers.

    A number is logged at its training step, counted over all stages: stage t begins where stage
    t-1 ended, even if stage t-1 was trained in an earlier session.

    Args:
        names: From :func:`known`.
        folder: The run folder; its name is the run's name in the tracker.
        config: The configuration to show.
        complain: Receives one line about a tracker that failed.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        config: dict[str, Any],
        complain: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        self.complain = complain
        self.ends: dict[int, int] = {0: 0}
        self.length = 0
        self.trackers: dict[str, Tracker] = {}
        for name in names:
            self.trackers[name] = KNOWN[name](folder, config)

    def __call__(self, event: Event) -> None:
        """Handle one event of :func:`cpt_bench.run.sequencer.run`."""
        stage = event.get("stage", 0)
        if event["kind"] == "train" and event.get("steps"):
            self.length = event["steps"]
            self.ends[stage] = self._start(stage) + event["steps"]
            skipped = ("step", "steps", "stage")
            figures = {
                f"train/{_tag(k)}": float(v)
                for k, v in event.items()
                if isinstance(v, int | float) and not isinstance(v, bool) and k not in skipped
            }
            self._log({**figures, "train/stage": float(stage)}, self._start(stage) + event["step"])
        elif event["kind"] == "cell":
            end = self.ends.get(stage, self._start(stage) + (self.length if stage else 0))
            self._log({f"accuracy/{_tag(event['name'])}": float(event["accuracy"])}, end)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Log the run's metrics that have a value, and close."""
        known = {f"metric/{_tag(k)}": p["value"] for k, p in metrics.items()}
        self._log({k: float(v) for k, v in known.items() if v is not None}, max(self.ends.values()))
        self.close()

    def close(self) -> None:
        for name, tracker in list(self.trackers.items()):
            self._try(name, tracker.close)
        self.trackers.clear()

    def _start(self, stage: int) -> int:
        return self.ends.get(stage - 1, max(0, stage - 1) * self.length)

    def _log(self, values: dict[str, float], step: int) -> None:
        for name, tracker in list(self.trackers.items()):
            self._try(name, lambda tracker=tracker: tracker.log(values, step))  # type: ignore[misc]

    def _try(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            self.trackers.pop(name, None)
            line = " ".join(str(error).split())[:200]
            self.complain(f"cptbench: tracker {name} failed and is left out ({line})")


def _tag(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-/ ]", "_", name)
