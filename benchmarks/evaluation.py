"""Evaluation throughput beside lm-eval and VLMEvalKit: same model, questions, replies.

cptbench's engine, lm-eval's ``hf-multimodal`` (at each batch size of ``--batches``) and
VLMEvalKit's ``Qwen2VLChat`` (which answers one question at a time) are asked the test splits of
``--tasks``. Each is in processes of its own, with the model loaded, so that none has the others'
settings; of ``--cores`` cores, cptbench takes a process each and the peers, which know nothing of
the kind, as many threads. What had to be done for the peers to run is in ``benchmarks/systems``.
They are asked in turns, cptbench right before each setting of a peer, every other round right
after. What counts is the time from the questions to the last reply; of a peer, its quickest setting
(one that is twice as slow on the first task is not asked again). Replies are compared text by text.
Processor time is told beside the clock's, for machines that have something else to do.

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
from benchmarks.systems.cptbench import Together
from cpt_bench import environment
from cpt_bench.engines import Request
from cpt_bench.errors import CptBenchError
from cpt_bench.files import write_text
from cpt_bench.general.vlmevalkit import VARIABLE, interpreter

BATCH, WARMING = 64, 64
About = dict[str, dict[str, Any]]
HOPELESS = 2
"""Times as slow as the same system's quickest setting: asked one task once, and no more."""


class Contestant(NamedTuple):
    """A system at a batch size."""

    system: str
    batch: int
    ask: Callable[[str, int], dict[str, Any]]

    @property
    def label(self) -> str:
        return f"{self.system}, {f'batches of {self.batch}' if self.batch > 1 else 'one by one'}"


class Pair(NamedTuple):
    """What cptbench and a peer said to the same questions, one right after the other."""

    ours: dict[str, Any]
    theirs: dict[str, Any]

    def identical(self) -> int:
        """How many replies are the same, character by character."""
        replies = zip(self.ours["replies"], self.theirs["replies"], strict=True)
        return sum(ours == theirs for ours, theirs in replies)


class Timings:
    """What was answered: by label and task, round by round, cptbench's just before or after."""

    def __init__(self, asked: dict[str, int]) -> None:
        self.asked = asked
        self.pairs: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))

    def rates(self, label: str) -> dict[str, float]:
        """Samples a second, in the median: of each task, and over all."""
        seconds = {task: [p.theirs["seconds"] for p in s] for task, s in self.pairs[label].items()}
        return self._rates(seconds)

    def own_rates(self) -> dict[str, float]:
        """The same of cptbench."""
        seconds: dict[str, list[float]] = defaultdict(list)
        for of_tasks in self.pairs.values():
            for task, pairs in of_tasks.items():
                seconds[task] += [pair.ours["seconds"] for pair in pairs]
        return self._rates(seconds)

    def _rates(self, seconds: dict[str, list[float]]) -> dict[str, float]:
        middle = {task: statistics.median(spent) for task, spent in seconds.items()}
        rates = {task: round(self.asked[task] / spent, 1) for task, spent in middle.items()}
        if middle.keys() == self.asked.keys():
            rates["all"] = round(sum(self.asked.values()) / sum(middle.values()), 1)
        return rates

    def ratios(self, label: str, unit: str) -> dict[str, float]:
        """Its ``seconds`` or ``processor`` divided by cptbench's beside it, in the median."""
        found = {
            task: [(pair.ours[unit], pair.theirs[unit]) for pair in pairs]
            for task, pairs in self.pairs[label].items()
        }
        found["all"] = [
            (sum(ours for ours, _ in round_), sum(theirs for _, theirs in round_))
            for round_ in zip(*found.values(), strict=True)
        ]
        return {
            task: round(statistics.median(theirs / ours for ours, theirs in spent), 2)
            for task, spent in found.items()
        }

    def beside(self, label: str) -> float | None:
        """Seconds a task that its call spends on other things than replies; None: not told."""
        spent = [p.theirs.get("beside") for pairs in self.pairs[label].values() for p in pairs]
        return None if None in spent else round(statistics.median(spent), 2)

    def identical(self, label: str) -> dict[str, int]:
        """How many replies are cptbench's; in the round with the fewest."""
        return {
            task: min(pair.identical() for pair in pairs)
            for task, pairs in self.pairs[label].items()
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


def surroundings(folder: Path, cores: int) -> dict[str, str]:
    """The environment of every system: its threads, no network, nothing left behind."""
    tables = folder / "LMUData"
    tables.mkdir()  # VLMEvalKit passes over a folder that is not there
    return {
        **os.environ, "OMP_NUM_THREADS": str(cores), "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets"),
        "LMUData": str(tables),
    }  # fmt: skip


@contextlib.contextmanager
def running(
    folder: Path, batches: Sequence[int], cores: int
) -> Iterator[tuple[list[Contestant], About]]:
    """cptbench, its peers, and what each system says about itself, until the block is left."""
    place, environ = Place(SUITE.base_path(), folder, NEW), surroundings(folder, cores)
    about: About = {}
    with contextlib.ExitStack() as stack:

        def start(name: str, title: str, python: Path) -> Running:
            system = Running(name, python, place, environ)
            stack.callback(system.close)
            about[title] = system.about
            return system

        here = Path(sys.executable)
        ours = Together([start("cptbench", "cptbench", here) for _ in range(cores)])
        contestants = [Contestant("cptbench", BATCH, ours.answer)]
        lm_eval = start("lm_eval", "lm-eval", here)
        contestants += [Contestant("lm-eval", batch, lm_eval.answer) for batch in batches]
        try:
            kit = start("vlmevalkit", "VLMEvalKit", interpreter())
            contestants.append(Contestant("VLMEvalKit", 1, kit.answer))
        except CptBenchError:
            about["VLMEvalKit"] = {"not measured": f"set {VARIABLE} to a Python that has it"}
        yield contestants, about


def timed(
    contestants: Sequence[Contestant],
    asked: dict[str, int],
    rounds: int,
    say: Callable[[str], None],
) -> Timings:
    """Each peer on all tasks, with cptbench beside it; the hopeless ones on the first alone."""
    timings = Timings(asked)
    ours, *peers = contestants
    for number in range(rounds):
        for place, task in enumerate(asked):
            for peer in peers if number % 2 == 0 else reversed(peers):
                pair = side_by_side(ours, peer, task, ours_first=number % 2 == 0)
                timings.pairs[peer.label][task].append(pair)
                rates = (f"{asked[task] / one['seconds']:.1f}" for one in pair)
                say(f"round {number + 1}, {task}, {peer.label}: {' and '.join(rates)} a second")
            if number == place == 0:
                peers = promising(peers, timings)
    return timings


def side_by_side(ours: Contestant, peer: Contestant, task: str, *, ours_first: bool) -> Pair:
    answered = {one: one.ask(task, one.batch) for one in ((ours, peer)[:: 1 if ours_first else -1])}
    return Pair(answered[ours], answered[peer])


def promising(peers: Sequence[Contestant], timings: Timings) -> list[Contestant]:
    """Those that may turn out to be their system's quickest setting."""
    rates = {peer: timings.rates(peer.label) for peer in peers}
    return [
        peer
        for peer in peers
        if HOPELESS * max(rates[peer].values())
        > max(max(rates[other].values()) for other in peers if other.system == peer.system)
    ]


def summary(peers: Sequence[Contestant], timings: Timings) -> dict[str, Any]:
    """Rates, replies, and how many times as fast cptbench is as each peer's quickest setting."""
    rates = {peer.label: timings.rates(peer.label) for peer in peers}
    times: dict[str, Any] = {}
    for system in dict.fromkeys(peer.system for peer in peers):
        own = [peer.label for peer in peers if peer.system == system and "all" in rates[peer.label]]
        best = max(own, key=lambda label: rates[label]["all"])
        times[system] = {
            "its quickest": best,
            "by the clock": timings.ratios(best, "seconds"),
            "in processor time": timings.ratios(best, "processor"),
            "seconds beside, not counted": timings.beside(best),
        }
    return {
        "questions": timings.asked,
        "samples a second": {"cptbench": timings.own_rates(), **rates},
        "identical replies": {peer.label: timings.identical(peer.label) for peer in peers},
        "times as fast": times,
        "raw": raw(timings),
    }


def raw(timings: Timings) -> list[dict[str, Any]]:
    """Everything timed, in seconds."""
    rows = []
    for label, of_tasks in timings.pairs.items():
        for task, pairs in of_tasks.items():
            for number, pair in enumerate(pairs):
                spent = {
                    name: {k: round(v, 3) for k, v in one.items() if k != "replies"}
                    for name, one in zip(("cptbench", "peer"), pair, strict=True)
                }
                rows.append({"beside": label, "task": task, "round": number + 1, **spent})
    return rows


def machine() -> dict[str, Any]:
    found = environment.hardware()
    return {key: found[key] for key in ("cpu", "machine", "cores", "memory_gib", "python")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", default="scene,science,counting", help="nano's, with pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
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
        with running(folder, batches, args.cores) as (contestants, about):
            timings = timed(contestants, asked, args.rounds, lambda w: print(w, file=sys.stderr))
    found = {
        "benchmark": "evaluation",
        "rounds": args.rounds,
        "cores": args.cores,
        **summary(contestants[1:], timings),
        "systems": about,
        "machine": machine(),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if args.out:
        write_text(args.out, text + "\n")


if __name__ == "__main__":
    main()
