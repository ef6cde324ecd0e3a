"""``cptbench run``: the main job."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import cpt_bench
from cpt_bench.cli.options import (
    TRIED,
    EngineName,
    EngineSettings,
    ProtocolName,
    TierName,
    listed,
)


class Keep(StrEnum):
    """Which checkpoints stay on disk."""

    all = "all"
    last = "last"
    none = "none"


def run(
    trainer: Annotated[
        str,
        typer.Option(
            help="The method: a name (cptbench list trainers shows them), pkg/name, "
            "module:Class, ./file.py:Class or 'cmd:… {stage}'."
        ),
    ],
    suite: Annotated[str, typer.Option(help="The benchmark: a name or a folder.")] = TRIED,
    tier: TierName = None,
    protocol: ProtocolName = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the run.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer (repeatable)."),
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="The task order, with commas [default: the suite's].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder [default: one in runs, named by itself].")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Use only the first N samples of each split; the run is marked as limited."
        ),
    ] = None,
    keep: Annotated[Keep, typer.Option(help="Which checkpoints stay on disk.")] = Keep.all,
    save_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Save a stage's state every N steps, to resume from it after an interruption "
            "[default: the stage starts again].",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    overlap: Annotated[
        bool | None,
        typer.Option(
            help="Evaluate a stage while the next one trains [default: yes with two cores or, on "
            "GPUs, with one to spare]."
        ),
    ] = None,
    share: Annotated[
        bool, typer.Option(help="Take finished stages from the other runs in the same folder.")
    ] = True,
    base: Annotated[
        str | None,
        typer.Option(
            help="The model to start from: a folder, or org/name[@revision] on the Hugging Face "
            "hub [default: the suite's base model]."
        ),
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            help='Train on several processes: "torchrun --nproc_per_node 8" or "accelerate launch '
            '--num_processes 8".'
        ),
    ] = None,
    engine: EngineName = "transformers",
    engine_set: EngineSettings = None,
    general: Annotated[
        list[str] | None,
        typer.Option(help="Also measure lm-eval:TASK or vlmevalkit:DATASET (repeatable)."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="The recipe: SUITE/NAME of those that ship, or a YAML file [default: the "
            "trainer's recipe for the suite]."
        ),
    ] = None,
    privilege: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="What a cmd: trainer uses beyond its task (repeatable)."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="The most training prompts a stage may draw.")
    ] = None,
    stage_timeout: Annotated[
        float | None, typer.Option(min=0, help="End a stage's training after this many seconds.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(min=0, help="End a training process at this many GiB of memory.")
    ] = None,
    report_to: Annotated[
        str,
        typer.Option(help="Experiment trackers, with commas: trackio, wandb, tensorboard."),
    ] = "",
    verbose: Annotated[bool, typer.Option(help="Show what the trainer prints.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take a model through a suite's tasks, one after the other, and measure what it forgot.

    The same command goes on after any interruption; a finished run is only shown.
    """
    from cpt_bench.cli.progress import progress
    from cpt_bench.cli.tables import print_result

    with progress(quiet=json_, verbose=verbose) as display:
        result = cpt_bench.run(
            suite,
            trainer,
            seed=seed,
            settings=set_ or (),
            recipe=recipe,
            privileges=privilege or (),
            tier=tier,
            protocol=protocol,
            order=listed(order),
            base=base,
            limit=limit,
            budget=budget,
            stage_timeout=stage_timeout,
            memory_limit=memory_limit,
            general=general or (),
            engine=engine,
            engine_settings=engine_set or (),
            launch=launch,
            threads=threads,
            overlap=overlap,
            keep=keep.value,
            save_every=save_every,
            out=out,
            share=share,
            report_to=listed(report_to) or (),
            progress=display,
        )
    print_result(result, json_)
