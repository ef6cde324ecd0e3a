"""Systems that answer questions, each in a process of its own that loads its model once.

``python -m benchmarks.systems.NAME MODEL QUESTIONS NEW`` answers, on the folder of questions that
:mod:`benchmarks.evaluation` writes, at most NEW tokens a reply, what it is told to, line by line.
Nothing here needs more than Python: VLMEvalKit's environment has no cptbench.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

WARM_UP = "warm_up"
"""Questions that are no test's: what is set up once is set up while these are answered."""
TRIES = 2


class Place(NamedTuple):
    """What a system is started with.

    Attributes:
        model: The checkpoint.
        questions: ``TASK.json``, ``TASK.yaml``, ``TASK.parquet`` of each task, and the pictures.
        new: The most tokens of a reply.
    """

    model: Path
    questions: Path
    new: int

    def asked(self, task: str) -> list[dict[str, Any]]:
        """A task's questions: ``prompt``, and ``images``, which are files."""
        found: list[dict[str, Any]] = json.loads((self.questions / f"{task}.json").read_text())
        return found


class System(Protocol):
    """What answers.

    Attributes:
        about: Its versions and settings.
    """

    about: dict[str, Any]

    def answer(self, task: str, batch: int) -> dict[str, Any]:
        """What a clock says from the questions to the last reply; ``replies`` in their order."""
        ...


class Clock:
    """Adds up what blocks take: seconds, and seconds of this process on a processor."""

    def __init__(self) -> None:
        self.said = {"seconds": 0.0, "processor": 0.0}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        start, worked = time.monotonic(), time.process_time()
        yield
        self.said["seconds"] += time.monotonic() - start
        self.said["processor"] += time.process_time() - worked


def quickest(
    settings: Sequence[str], opened: Callable[[str], Any], work: Callable[[Any], object]
) -> tuple[str, Any]:
    """The setting with which ``work`` takes the least processor time, and what was opened with it.

    Each is tried once untimed, then in turns.
    """
    there = {setting: opened(setting) for setting in settings}
    best = dict.fromkeys(settings, float("inf"))
    for turn in range(1 + TRIES):
        for setting in settings:
            start = time.process_time()
            work(there[setting])
            if turn:
                best[setting] = min(best[setting], time.process_time() - start)
    chosen = min(settings, key=best.__getitem__)
    return chosen, there[chosen]


def serve(start: Callable[[Place], System]) -> None:
    """Answer what standard input asks, a line of JSON each, until it ends."""
    # What libraries print must not come between: it goes where errors go.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    model, questions, new = sys.argv[1:]
    system = start(Place(Path(model), Path(questions), int(new)))
    print(json.dumps(system.about), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(system.answer(**json.loads(line))), file=out, flush=True)


class Running:
    """A system in its process, as the one who asks sees it.

    Args:
        name: A module of this package.
        python: What runs it.
        place: What it is started with.
        environment: Its environment variables.
    """

    def __init__(
        self, name: str, python: str | Path, place: Place, environment: Mapping[str, str]
    ) -> None:
        self.name, self.log = name, place.questions / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", f"{__name__}.{name}", *map(str, place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
                env=dict(environment),
            )
        self.about = self._heard()

    def answer(self, task: str, batch: int, **more: int) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"task": task, "batch": batch, **more}) + "\n")
        self.process.stdin.flush()
        return self._heard()

    def close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()

    def _heard(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended:\n{self.log.read_text()[-2000:]}")
        heard: dict[str, Any] = json.loads(line)
        return heard
