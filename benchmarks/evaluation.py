"""Evaluation throughput beside lm-eval and VLMEvalKit: same model, questions, replies.

cptbench's engine, lm-eval's ``hf-multimodal`` (at each batch size of ``--batches``) and
VLMEvalKit's ``Qwen2VLChat`` (which answers one question at a time) are asked the test splits of
``--tasks``. Each is in a process of its own, one core each, with the model loaded, so that none has
the others' settings; what had to be done for the peers to run is said in ``benchmarks/systems``.
They are asked in turns, every other round in the opposite order. What counts is the time from the
questions to the last reply; of a peer, its quickest setting (one that is twice as slow on the first
task is not asked again). Replies are compared text by text.

VLMEvalKit is run by the Python that ``$CPTBENCH_VLMEVALKIT`` names, and left out without it.

    python -m benchmarks.evaluation --out benchmarks/results/evaluation.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from benchmarks.questions import NEW, SUITE, requests, write_task
from benchmarks.systems import WARM_UP, Place, Running
from cpt_bench import environment
from cpt_bench.engines import Request
from cpt_bench.errors import CptBenchError
from cpt_bench.files import write_text
from cpt_bench.general.vlmevalkit import VARIABLE, interpreter

OURS, BATCH = "cptbench", 64
WARMING = 64
HOPELESS = 2
"""Times as slow as the same system's quickest setting: asked one task once, and no more."""


class Contestant(NamedTuple):
    """A system at a batch size."""

    system: str
    batch: int
    ask: Callable[[str, int], dict[str, Any]]

    @property
    def label(self) -> str:
        if self.system == OURS:
            return OURS
        return f"{self.system}, {f'batches of {self.batch}' if self.batch > 1 else 'one by one'}"


class Timings:
    """What each contestant took, in seconds, and replied; by label and task, round by round."""

    def __init__(self, asked: dict[str, int]) -> None:
        self.asked = asked
        self.seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.beside: dict[str, list[float]] = defaultdict(list)
        self.replies: dict[str, dict[str, list[str]]] = defaultdict(dict)

    def note(self, label: str, task: str, answered: dict[str, Any]) -> None:
        self.seconds[label][task].append(answered["seconds"])
        if "beside" in answered:
            self.beside[label].append(answered["beside"])
        before = self.replies[label].setdefault(task, answered["replies"])
        assert before == answered["replies"], f"{label} replied to {task} otherwise before"

    def together(self, label: str) -> list[float]:
        """Seconds over all tasks, round by round."""
        return [sum(round_) for round_ in zip(*self.seconds[label].values(), strict=True)]

    def rates(self, label: str) -> dict[str, float]:
        """Samples a second: of each task, and over all."""
        middle = {t: statistics.median(spent) for t, spent in self.seconds[label].items()}
        rates = {task: self.asked[task] / seconds for task, seconds in middle.items()}
        if rates.keys() == self.asked.keys():
            rates["all"] = sum(self.asked.values()) / statistics.median(self.together(label))
        return {task: round(rate, 1) for task, rate in rates.items()}

    def identical(self, label: str) -> dict[str, int]:
        """How many replies are cptbench's, character by character."""
        return {
            task: sum(a == b for a, b in zip(self.replies[OURS][task], theirs, strict=True))
            for task, theirs in self.replies[label].items()
        }

    def ratios(self, label: str) -> dict[str, float]:
        """Its seconds divided by cptbench's of the same round; the medians."""
        pairs = {task: (self.seconds[OURS][task], s) for task, s in self.seconds[label].items()}
        pairs["all"] = (self.together(OURS), self.together(label))
        return {
            task: round(statistics.median(b / a for a, b in zip(*pair, strict=True)), 2)
            for task, pair in pairs.items()
        }


def write_questions(name: str, asked: Sequence[Request], folder: Path) -> None:
    """Questions for every system: lm-eval's task, and prompts with files of pictures."""
    write_task(name, list(asked), folder)
    rows = []
    for i, request in enumerate(asked):
        files = []
        for j, picture in enumerate(request.images):
            kind = (Image.open(io.BytesIO(picture)).format or "png").lower()
            file = folder / f"{name}-{i}-{j}.{kind}"
            file.write_bytes(picture)
            files.append(str(file))
        rows.append({"prompt": request.prompt, "images": files})
    (folder / f"{name}.json").write_text(json.dumps(rows))


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of every system: one thread, no network, nothing left behind."""
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets"),
        "LMUData": str(folder / "LMUData"),
    }  # fmt: skip


@contextlib.contextmanager
def running(
    folder: Path, batches: Sequence[int]
) -> Iterator[tuple[list[Contestant], dict[str, dict[str, Any]]]]:
    """Every contestant, and what each system says about itself, until the block is left."""
    place, environ = Place(SUITE.base_path(), folder, NEW), surroundings(folder)
    about: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:

        def start(name: str, title: str, python: Path, batches: Sequence[int]) -> list[Contestant]:
            system = Running(name, python, place, environ)
            stack.callback(system.close)
            about[title] = system.about
            return [Contestant(title, batch, system.answer) for batch in batches]

        here = Path(sys.executable)
        contestants = start("cptbench", OURS, here, [BATCH])
        contestants += start("lm_eval", "lm-eval", here, batches)
        try:
            contestants += start("vlmevalkit", "VLMEvalKit", interpreter(), [1])
        except CptBenchError:
            about["VLMEvalKit"] = {"not measured": f"set {VARIABLE} to a Python that has it"}
        yield contestants, about


def timed(
    contestants: Sequence[Contestant],
    asked: dict[str, int],
    rounds: int,
    say: Callable[[str], None],
) -> Timings:
    """All contestants on all tasks, in turns; the hopeless ones on the first alone."""
    timings, going = Timings(asked), list(contestants)
    for number in range(rounds):
        for task in asked:
            for one in going if number % 2 == 0 else reversed(going):
                answered = one.ask(task, one.batch)
                timings.note(one.label, task, answered)
                rate = asked[task] / answered["seconds"]
                say(f"round {number + 1}, {task}, {one.label}: {rate:.1f} a second")
            if len(timings.seconds[OURS]) == 1:
                going = promising(
                    going, {one: timings.seconds[one.label][task][0] for one in going}
                )
    return timings


def promising(
    contestants: Sequence[Contestant], seconds: dict[Contestant, float]
) -> list[Contestant]:
    """Those that may turn out to be their system's quickest setting."""
    return [
        one
        for one in contestants
        if seconds[one]
        < HOPELESS * min(seconds[other] for other in contestants if other.system == one.system)
    ]


def summary(contestants: Sequence[Contestant], timings: Timings) -> dict[str, Any]:
    """Rates, replies, and how many times as fast cptbench is as each peer's quickest setting."""
    labels = [one.label for one in contestants]
    rates = {label: timings.rates(label) for label in labels}
    times: dict[str, Any] = {}
    for system in dict.fromkeys(one.system for one in contestants if one.system != OURS):
        own = [o.label for o in contestants if o.system == system and "all" in rates[o.label]]
        best = max(own, key=lambda label: rates[label]["all"])
        times[system] = {"its best": best, **timings.ratios(best)}
    return {
        "questions": timings.asked,
        "samples a second": rates,
        "identical replies": {name: timings.identical(name) for name in labels if name != OURS},
        "times as fast": times,
        "seconds a task beside, not counted": {
            label: round(statistics.median(spent), 2) for label, spent in timings.beside.items()
        },
        "seconds": {
            label: {task: [round(s, 3) for s in spent] for task, spent in of_tasks.items()}
            for label, of_tasks in timings.seconds.items()
        },
    }


def machine() -> dict[str, Any]:
    found = environment.hardware()
    return {key: found[key] for key in ("cpu", "machine", "cores", "memory_gib", "python")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", default="scene,science,counting", help="nano's, with pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,8,32,64,128", help="lm-eval's")
    parser.add_argument("--limit", type=int, help="only the first so many questions of a task")
    parser.add_argument("--out", type=Path, help="write the result here, too")
    args = parser.parse_args()
    batches = [int(batch) for batch in args.batches.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        folder, asked = Path(scratch), {}
        for task in args.tasks.split(","):
            questions = requests(task)[: args.limit]
            write_questions(task, questions, folder)
            asked[task] = len(questions)
        write_questions(WARM_UP, requests(next(iter(asked)), "train")[:WARMING], folder)
        with running(folder, batches) as (contestants, about):
            timings = timed(contestants, asked, args.rounds, lambda w: print(w, file=sys.stderr))
    found = {
        "benchmark": "evaluation",
        "rounds": args.rounds,
        **summary(contestants, timings),
        "systems": about,
        "machine": machine(),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if args.out:
        write_text(args.out, text + "\n")


if __name__ == "__main__":
    main()
