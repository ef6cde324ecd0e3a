"""``cptbench run``: the main job."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpt_bench.errors import CptBenchError, Interrupted

if TYPE_CHECKING:
    from cpt_bench.runner import Plan


class Keep(StrEnum):
    """Which checkpoints stay on disk."""

    all = "all"
    last = "last"
    none = "none"


def run(
    trainer: Annotated[
        str, typer.Option(help="sft, rft, pkg/name, module:Class or ./file.py:Class.")
    ],
    suite: Annotated[str, typer.Option(help="The benchmark.")] = "nano",
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
        typer.Option(help="Evaluate a stage while the next trains [on with two cores or more]."),
    ] = None,
    share: Annotated[
        bool, typer.Option(help="Take finished stages from runs beside this one.")
    ] = True,
    base: Annotated[Path | None, typer.Option(help="Start from this checkpoint instead.")] = None,
    launch: Annotated[
        str | None,
        typer.Option(help='Train on several processes: "torchrun --nproc_per_node 8".'),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Settings: SUITE/NAME of those that ship, or a YAML file.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take a model through a suite's tasks, one after the other, and say what it forgot.

    The same command goes on after any interruption; a finished run is a no-op.
    """
    from cpt_bench.cli.score import need_training_extra

    need_training_extra()
    from cpt_bench.variants import compose

    suite = compose(suite, protocol, tier)
    overlap = (os.cpu_count() or 1) > 1 if overlap is None else overlap
    settings = set_ or []
    plan = make_plan(
        trainer, suite, seed, settings, order, limit, keep.value, threads, overlap, base, launch, recipe
    )
    names = [*settings, *([f"recipe={recipe}"] if recipe else [])]
    folder = out or Path("runs") / run_name(plan, names)
    from cpt_bench.cli.progress import progress
    from cpt_bench.cli.tables import print_scores
    from cpt_bench.runner import run as carry_out

    shared = folder.parent / ".shared" if share else None
    try:
        with progress(plan, folder, quiet=json_) as tell:
            scores, costs = carry_out(plan, folder, shared, tell)
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


def make_plan(
    trainer: str,
    suite: str,
    seed: int,
    settings: list[str],
    order: str | None,
    limit: int | None,
    keep: str,
    threads: int,
    overlap: bool,
    base: Path | None,
    launch: str | None = None,
    recipe_spec: str | None = None,
) -> Plan:
    """Everything a run needs, checked before anything heavy starts."""
    from cpt_bench.plugins import locate, resolve
    from cpt_bench.suite import open_suite
    from cpt_bench.worker import warm_up

    found_suite = open_suite(suite)
    if order is not None:
        found_suite = found_suite.reordered(tuple(order.split(",")))
    locate("trainers", trainer)  # a mistyped name is told before anything heavy is imported
    from cpt_bench.sources import require_prepared

    require_prepared(found_suite, suite)
    warm_up()
    found = resolve("trainers", trainer)
    from cpt_bench.recipes import configure, named, recipe
    from cpt_bench.runner import Plan
    from cpt_bench.trainer import Trainer

    if not (isinstance(found.value, type) and issubclass(found.value, Trainer)):
        raise CptBenchError(f"{trainer} is not a Trainer", todo="Give a subclass of it")
    if launch is not None:
        from cpt_bench.launch import command

        command(launch, Path())
    shipped = named(recipe_spec) if recipe_spec else recipe(found_suite.name, found.name)
    config = configure(found.value, shipped, settings)
    return Plan(
        suite_spec=suite,
        suite=found_suite,
        trainer=found,
        config=config,
        seed=seed,
        limit=limit,
        threads=threads,
        overlap=overlap,
        keep=keep,
        base=base or found_suite.base_path(),
        launch=launch,
    )


def run_name(plan: Plan, settings: list[str]) -> str:
    """``nano-rft-seed0``, with a tail for whatever is not the default."""
    from cpt_bench.files import digest_json

    special: dict[str, Any] = {"settings": sorted(settings)} if settings else {}
    if plan.limit is not None:
        special["limit"] = plan.limit
    if plan.base != plan.suite.base_path():
        special["base"] = str(plan.base)
    if plan.launch:
        special["launch"] = plan.launch
    name = f"{plan.suite.label}-{plan.trainer.name.lower()}-seed{plan.seed}"
    changed = [s.replace("=", "_") for s in settings]
    readable = "-".join([name, *changed])
    tail = f"-{digest_json(special)[:6]}" if special.keys() - {"settings"} else ""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in readable)[:120] + tail


def _spent(costs: dict[str, Any]) -> str:
    if not costs["steps_done"]:
        return "nothing to do: the run was already finished"
    training = costs["train_seconds"] - costs["generation_seconds"]
    return (
        f"{costs['wall_seconds']:.0f} s: training {training:.0f} s, rollouts "
        f"{costs['generation_seconds']:.0f} s, evaluation {costs['evaluate_seconds']:.0f} s "
        "(beside training, where there are two cores)"
    )
