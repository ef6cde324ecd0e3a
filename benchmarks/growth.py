"""How cost grows: with steps, samples, tasks, rollouts, the length of replies, the model's size.

Each series changes one thing of nano's recipes and leaves the others as they are, on the task
``scene``. All is measured in one process on one core, the points of all series in turns, and told
in processor seconds and as a ratio to the recipe's own value: read the ratios within one run.

* A step is the median of a few, the first left out; the trainers are ``sft`` and ``rft`` with their
  recipes' settings, no self-check.
* A stage of n steps is read off one stage of the recipe's length: up to its n-th step, and its end.
* Where replies are 'all as long', none ends before its last token, and every other rollout is
  rewarded: else another length, or another model, would be other work for other reasons. (In a run
  most replies end far sooner, and a prompt whose rollouts all earn the same costs less.)
* Models of other sizes have random weights, and the shipped one's tokenizer and processor.

    python -m benchmarks.growth --out growth.json
"""

from __future__ import annotations

import argparse
import functools
import itertools
import shutil
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import disable_progress_bars
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging

from benchmarks.questions import NEW, SUITE, requests
from benchmarks.steps import TASK, stage_in
from benchmarks.where import machine, machine_line, tell
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.models import checkpoint as policy
from cpt_bench.run.jobs import evaluate
from cpt_bench.stage.outputs import count_parameters
from cpt_bench.stage.recipes import named
from cpt_bench.stage.split import write_split
from cpt_bench.trainer import RewardParts, Stage
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT
from cpt_bench.worker.threads import set_threads

ROUNDS = 2
STEPS = 4
"""Steps of which the median is taken, with the first, which is not counted."""
ASKED = 64
"""Prompts whose replies are timed: a batch."""
NEVER = -1
"""A token that no model writes: replies do not end with it."""

SETTINGS = {SFT: named("nano/sft"), RFT: named("nano/rft") | {"self_check": 0}}
BASE = SUITE.base_path()


class Endless(RFT):
    """RFT whose rollouts never end before they are as long as they may be."""

    def adjust(self, trainer: Any, stage: Stage, log: Any) -> None:
        trainer.eos_token_ids = [NEVER]


class Marks(NamedTuple):
    """Moments of a stage, in processor seconds.

    Attributes:
        start: When it began.
        steps: When each step was done.
        end: When its checkpoint was written.
    """

    start: float
    steps: list[float]
    end: float

    def step(self) -> float:
        """Median seconds of a step, the first left out."""
        return statistics.median(b - a for a, b in pairwise(self.steps))

    def stage(self, steps: int) -> float:
        """Seconds of the same stage, had it ended after ``steps``."""
        return self.steps[steps - 1] - self.start + self.end - self.steps[-1]

    def begin(self) -> float:
        """Seconds until the first step was done."""
        return self.steps[0] - self.start


def every_other() -> Callable[[Any, str], RewardParts]:
    """A reward of 1 for every other reply, whatever it says: each one has something to teach."""
    turns = itertools.cycle([0.0, 1.0])
    return lambda sample, reply: RewardParts(total := next(turns), total, True)


def learn(
    kind: Any, data: Path, change: Callable[[Stage], Stage] = lambda s: s, **settings: Any
) -> Marks:
    """Train a stage.

    Args:
        kind: The trainer.
        data: The folder of its train split.
        change: What is other than in a run.
        settings: What is other than in the recipe.
    """
    times: list[float] = []
    recipe = SETTINGS[SFT if kind is SFT else RFT]
    trainer = kind(kind.Config(**recipe | settings))
    with tempfile.TemporaryDirectory() as scratch:
        stage = stage_in(Path(scratch), data, lambda row: times.append(time.process_time()))
        stage = change(stage)
        start = time.process_time()
        trainer.train(stage)
        return Marks(start, times, time.process_time())


def forced(length: int, model: Path = BASE) -> Callable[[Stage], Stage]:
    """A stage of ``model`` whose replies may have ``length`` tokens, half of them rewarded."""
    return lambda s: replace(s, max_new_tokens=length, policy=model, reward=every_other())


@functools.cache
def questions() -> list[Request]:
    """What is asked where replies are timed."""
    return requests(TASK)[:ASKED]


def hundred_replies(length: int, model: Path = BASE) -> float:
    """Seconds for 100 replies of ``length`` tokens by an engine that is loaded."""
    engine = TransformersEngine(model)
    engine.ends = [NEVER]
    asked = questions()
    engine.generate(asked, 2)
    start = time.process_time()
    engine.generate(asked, length)
    return (time.process_time() - start) * 100 / ASKED


def evaluation(tasks: int, samples: int) -> float:
    """Seconds of a run's evaluation of one checkpoint on ``tasks`` times the same task."""
    with tempfile.TemporaryDirectory() as scratch:
        job = evaluate.EvaluateJob(
            suite_folder=SUITE.place,
            checkpoint=BASE,
            weights=policy.weights_digest(BASE),
            names=[TASK] * tasks,
            outputs=[Path(scratch) / f"{i}.jsonl" for i in range(tasks)],
            limit=samples,
            threads=1,
            data=Path(scratch) / "data",
        )
        start = time.process_time()
        evaluate.evaluate(lambda event: None, job)
        return time.process_time() - start


def beginning(split: Path, samples: int) -> Path:
    """The first ``samples`` of a prepared train split, beside it."""
    part = split.with_name(f"{split.name}-{samples}")
    part.mkdir()
    (part / "images").symlink_to(split / "images")
    with (split / "train.jsonl").open() as lines:
        (part / "train.jsonl").write_text("".join(itertools.islice(lines, samples)))
    return part


def resized(folder: Path, width: float, layers: int) -> Path:
    """A checkpoint of random weights, ``width`` times as wide as the shipped one.

    The heads are as many as before, and wider.
    """
    config = AutoConfig.from_pretrained(BASE)
    text, vision = config.text_config, config.vision_config
    for part in (text, vision):
        part.hidden_size = round(part.hidden_size * width)
        part.intermediate_size = round(part.intermediate_size * width)
    vision.out_hidden_size = text.hidden_size
    rope = text.rope_parameters
    text.rope_parameters = {
        **rope, "mrope_section": [round(n * width) for n in rope["mrope_section"]]
    }  # fmt: skip
    text.num_hidden_layers, text.layer_types = layers, text.layer_types[:1] * layers
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    model.save_pretrained(folder)
    for file in BASE.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copyfile(file, folder / file.name)
    return folder


def quiet() -> None:
    """No bars and no warnings of libraries about each other: here is no log to put them in."""
    warnings.simplefilter("ignore")
    disable_progress_bars()
    logging.disable_progress_bar()


# ------------------------------------------------------------------------------------ the series


class Series(NamedTuple):
    """What is changed, and what is measured of it.

    Attributes:
        title: What is changed.
        default: The recipe's value.
        measure: A round: (value, column, seconds) of every point.
        rounds: At most so many are taken: a long series is a mean by itself.
    """

    title: str
    default: Any
    measure: Callable[[], list[tuple[Any, str, float]]]
    rounds: int = 1_000


def by_point(
    values: Sequence[Any], columns: dict[str, Callable[[Any], float]]
) -> Callable[[], list[tuple[Any, str, float]]]:
    """A round that measures each column at each value by itself."""
    return lambda: [(v, name, work(v)) for v in values for name, work in columns.items()]


def stages_of(kind: Any, data: Path, steps: Sequence[int]) -> list[tuple[Any, str, float]]:
    """A stage of the recipe's length, read off after each of ``steps``."""
    marks = learn(kind, data)
    return [(n, "stage", marks.stage(n)) for n in steps]


def all_series(splits: dict[int, Path], models: dict[str, Path]) -> list[Series]:
    """The series.

    Args:
        splits: Train splits by their number of samples; the largest is the suite's.
        models: Checkpoints by what they are; the first is of the shipped one's size.
    """
    whole = max(splits)
    data, few = splits[whole], splits[min(splits)]
    card, rft = SUITE.card(TASK), SETTINGS[RFT]
    test = card.splits["test"].n
    benchmarks = len(SUITE.sequence) + len(SUITE.general)
    usual = next(iter(models))

    def rollouts(n: int) -> float:
        return learn(RFT, few, max_steps=STEPS, rollouts=n).step()

    def long_rollouts(n: int) -> float:
        return learn(Endless, few, forced(n), max_steps=STEPS).step()

    def steps_of(kind: Any, model: str) -> float:
        return learn(kind, few, forced(NEW, models[model]), max_steps=STEPS).step()

    def quarters(kind: Any) -> list[int]:
        most = SETTINGS[kind]["max_steps"]
        return [most * part // 4 for part in (1, 2, 3, 4)]

    return [
        Series(
            "steps of a stage of sft",
            quarters(SFT)[-1],
            lambda: stages_of(SFT, data, quarters(SFT)),
            rounds=1,
        ),
        Series(
            "steps of a stage of rft",
            quarters(RFT)[-1],
            lambda: stages_of(RFT, data, quarters(RFT)),
            rounds=1,
        ),
        Series(
            "samples of the train split: until the first step is done",
            whole,
            by_point(
                sorted(splits),
                {
                    "sft": lambda n: learn(SFT, splits[n], max_steps=1).begin(),
                    "rft": lambda n: learn(RFT, splits[n], max_steps=1).begin(),
                },
            ),
        ),
        Series(
            "samples of a task that are evaluated",
            test,
            by_point([test // 4, test // 2, test], {"one task": lambda n: evaluation(1, n)}),
        ),
        Series(
            "tasks that are evaluated",
            benchmarks,
            by_point([1, 2, 5, benchmarks], {"32 samples each": lambda n: evaluation(n, 32)}),
        ),
        Series(
            "rollouts a prompt", rft["rollouts"], by_point([2, 4, 8, 16], {"RFT step": rollouts})
        ),
        Series(
            "tokens of a reply, all as long",
            NEW,
            by_point([5, 10, 20, 40], {"RFT step": long_rollouts, "100 replies": hundred_replies}),
        ),
        Series(
            "width and layers of the model, replies all as long",
            usual,
            by_point(
                list(models),
                {
                    "SFT step": lambda name: steps_of(SFT, name),
                    "RFT step": lambda name: steps_of(Endless, name),
                    "100 replies": lambda name: hundred_replies(NEW, models[name]),
                },
            ),
        ),
    ]


def measured(series: Sequence[Series], rounds: int) -> list[dict[str, Any]]:
    """Median seconds of every point, and their ratios to the default's."""
    seconds: dict[tuple[str, Any, str], list[float]] = defaultdict(list)
    for turn in range(rounds):
        for one in series:
            for value, column, spent in one.measure() if turn < one.rounds else ():
                seconds[one.title, value, column].append(spent)
    middle = {key: statistics.median(spent) for key, spent in seconds.items()}
    out = []
    for one in series:
        points: dict[Any, dict[str, Any]] = {}
        for (title, value, column), spent in middle.items():
            if title == one.title:
                ratio = spent / middle[title, one.default, column]
                figures = {"seconds": round(spent, 4), "ratio": round(ratio, 3)}
                points.setdefault(value, {"value": value})[column] = figures
        out.append({"what": one.title, "default": one.default, "points": list(points.values())})
    return out


def weighed(series: dict[str, Any], models: dict[str, Path]) -> None:
    """Add to each point of a series over ``models`` how many weights it has, and their ratio."""
    weights = {name: count_parameters(folder) for name, folder in models.items()}
    for point in series["points"]:
        n = weights[point["value"]]
        point["weights"] = {"number": n, "ratio": round(n / weights[series["default"]], 3)}


def table(series: dict[str, Any]) -> Table:
    """Seconds and ratio of each column."""
    out = Table(box=None, padding=(0, 1, 0, 0))
    out.add_column("", no_wrap=True)
    columns = [name for name in series["points"][0] if name != "value"]
    for name in columns:
        out.add_column(name, justify="right", no_wrap=True)
        out.add_column("ratio", justify="right", no_wrap=True)
    for point in series["points"]:
        cells = []
        for name in columns:
            given = point[name]
            told = (
                f"{given['number'] / 1e6:.2f} M" if name == "weights" else f"{given['seconds']:.3f}"
            )
            cells += [told, f"{given['ratio']:.2f}"]
        mark = " *" if point["value"] == series["default"] else ""
        out.add_row(f"{point['value']}{mark}", *cells)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", help="only the series whose title has this in it")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    args = parser.parse_args()
    set_threads(1)
    quiet()
    card, start = SUITE.card(TASK), time.monotonic()
    whole = card.splits["train"].n
    sizes = [(1, 4), (1.5, 4), (2, 4), (1, 8)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_split(card, SUITE.protocol, None, folder / "train")
        splits = {n: beginning(folder / "train", n) for n in (whole // 8, whole // 2, whole)}
        models = {
            f"x{width}, {layers} layers": resized(folder / f"{width}x{layers}", width, layers)
            for width, layers in sizes
        }
        series = [s for s in all_series(splits, models) if (args.only or "") in s.title]
        found = measured(series, args.rounds)
        for one in found:
            if one["default"] in models:
                weighed(one, models)
    result = {
        "machine": machine(),
        "threads": 1,
        "rounds": args.rounds,
        "wall_seconds": round(time.monotonic() - start, 1),
        "series": found,
    }
    console = Console(stderr=True, highlight=False)
    console.print(machine_line(result["machine"]))
    for one in found:
        console.print(f"\n{one['what']}")
        console.print(table(one))
    console.print("\nprocessor seconds on one core; * is the recipe's own, ratios are to it")
    tell(result, args.out)


if __name__ == "__main__":
    main()
