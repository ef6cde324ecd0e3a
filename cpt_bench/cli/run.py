"""``cptbench run``: the main job."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpt_bench.cli.options import TRIED, EngineName, EngineSettings
from cpt_bench.errors import CptBenchError, Interrupted

if TYPE_CHECKING:
    from cpt_bench.run.plan import Plan


class Keep(StrEnum):
    """Which checkpoints stay on disk."""

    all = "all"
    last = "last"
    none = "none"


def run(
    trainer: Annotated[
        str,
        typer.Option(
            help="A listed name, pkg/name, module:Class, ./file.py:Class, 'cmd:… {stage}'."
        ),
    ],
    suite: Annotated[str, typer.Option(help="The benchmark.")] = TRIED,
    tier: Annotated[str | None, typer.Option(help="Its size, where it has several.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Its ruler, where it has several: NAME or NAME.STYLE.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds every stage.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="Another task order, with commas.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder [runs/<what it is>].")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N samples of each split (marked).")
    ] = None,
    keep: Annotated[Keep, typer.Option(help="Which checkpoints stay.")] = Keep.all,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    overlap: Annotated[
        bool | None,
        typer.Option(
            help="Evaluate a stage while the next trains [on with two cores or, on GPUs, with "
            "one to spare]."
        ),
    ] = None,
    share: Annotated[
        bool, typer.Option(help="Take finished stages from runs beside this one.")
    ] = True,
    base: Annotated[Path | None, typer.Option(help="Start from this checkpoint instead.")] = None,
    launch: Annotated[
        str | None,
        typer.Option(help='Train on several processes: "torchrun --nproc_per_node 8".'),
    ] = None,
    engine: EngineName = "transformers",
    engine_set: EngineSettings = None,
    general: Annotated[
        list[str] | None,
        typer.Option(help="Also measure lm-eval:TASK or vlmevalkit:DATASET (repeatable)."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Settings: SUITE/NAME of those that ship, or a YAML file.")
    ] = None,
    privilege: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What a cmd: trainer uses beyond its task."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Training prompts a stage may draw.")
    ] = None,
    stage_timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which a stage's training is ended.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(min=0, help="GiB of memory at which it is ended.")
    ] = None,
    report_to: Annotated[
        str, typer.Option(help="Trackers to feed, with commas: trackio, wandb, tensorboard.")
    ] = "",
    verbose: Annotated[bool, typer.Option(help="Show what the trainer prints.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take a model through a suite's tasks, one after the other, and say what it forgot.

    The same command goes on after any interruption; a finished run is a no-op.
    """
    from cpt_bench.cli.score import need_training_extra

    need_training_extra()
    from cpt_bench.run.trackers import names_of
    from cpt_bench.sources import require_prepared
    from cpt_bench.suite import open_suite
    from cpt_bench.suite.variants import compose

    for option, most in (("--stage-timeout", stage_timeout), ("--memory-limit", memory_limit)):
        if most is not None and not 0 < most < math.inf:
            raise CptBenchError(f"{most} is no limit", where=option, todo="Leave it out for none")
    trackers = names_of(report_to)
    suite = compose(suite, protocol, tier)
    found_suite = open_suite(suite)
    if order is not None:
        found_suite = found_suite.reordered(tuple(order.split(",")))
    require_prepared(found_suite, suite)
    settings = set_ or []
    for spec in general or ():
        from cpt_bench.general import installed, parse

        installed(parse(spec))  # as is a harness that is not there
    if launch is not None:
        from cpt_bench.stage.launch import command

        command(launch)  # what cannot be followed is told at once
        if trainer.startswith("cmd:"):
            raise CptBenchError(
                "a cmd: trainer starts its own processes", where=f"--launch {launch!r}"
            )
    from cpt_bench.engines.choice import choose
    from cpt_bench.worker import devices

    chosen, gpus = choose(engine, engine_set or ()), devices.visible()
    # A command may start as many processes as it likes; it is told to leave a GPU when asked to.
    count = devices.processes(launch) if overlap or not trainer.startswith("cmd:") else None
    beside, seen = devices.divide(gpus, count, overlap, os.cpu_count() or 1, chosen.gpus)
    # An engine that waits for the next checkpoint keeps its GPU: training must not need that one.
    chosen = chosen._replace(
        kept=seen.evaluation is not None or (chosen.name == "vllm" and not gpus)
    )
    from cpt_bench.run.plan import Plan
    from cpt_bench.stage.method import Asked, find_method
    from cpt_bench.trainer import Budget

    plan = Plan(
        suite_spec=suite,
        suite=found_suite,
        method=find_method(
            Asked(trainer, found_suite.name, tuple(settings), tuple(privilege or ()), recipe)
        ),
        seed=seed,
        limit=limit,
        threads=threads,
        overlap=beside,
        keep=keep.value,
        base=base or found_suite.base_path(),
        budget=Budget(samples=budget, seconds=stage_timeout),
        memory_mib=memory_limit * 1024 if memory_limit is not None else None,
        launch=launch,
        general=tuple(general or ()),
        engine=chosen,
        devices=seen,
    )
    from cpt_bench.run.naming import run_name

    names = [*settings, *([f"recipe={recipe}"] if recipe else [])]
    folder = out or Path("runs") / run_name(plan, names)
    carry_out(plan, folder, share, json_, verbose, trackers)


def carry_out(
    plan: Plan,
    folder: Path,
    share: bool,
    json_: bool,
    verbose: bool = False,
    trackers: Sequence[str] = (),
) -> None:
    """Run ``plan`` in ``folder`` with progress, and print what came of it."""
    from cpt_bench.cli.progress import progress
    from cpt_bench.cli.tables import print_scores
    from cpt_bench.run.sequencer import run as run_plan
    from cpt_bench.run.trackers import Reporter

    shared = folder.parent / ".shared" if share else None
    shown = plan.identity() if trackers else {}  # it reads all of the base's weights
    try:
        with (
            contextlib.closing(Reporter(trackers, folder, shown)) as reporter,
            progress(plan, folder, quiet=json_, verbose=verbose) as tell,
        ):

            def heard(event: dict[str, Any]) -> None:
                tell(event)
                reporter(event)

            scores, costs = run_plan(plan, folder, shared, heard)
            reporter.finish(scores.metrics)
    except KeyboardInterrupt:
        advice = "What was committed is kept: run the same command to go on"
        raise Interrupted("interrupted", where=folder, todo=advice) from None
    if json_:
        result = {"run": str(folder), "matrix": scores.matrix_json(), "metrics": scores.metrics}
        json.dump({**result, "costs": costs}, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    print_scores(scores.matrix_json(), scores.metrics)
    print(f"\n{_spent(costs)}\n{folder}/metrics.json")


def _spent(costs: dict[str, Any]) -> str:
    if not costs["steps_done"]:
        return "nothing to do: the run was already finished"
    training = costs["train_seconds"] - costs["generation_seconds"]
    return (
        f"{costs['wall_seconds']:.0f} s: training {training:.0f} s, rollouts "
        f"{costs['generation_seconds']:.0f} s, evaluation {costs['evaluate_seconds']:.0f} s "
        "(beside training, where there are two cores)"
    )
