"""``cptbench eval`` and ``cptbench export``: methods that were trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import cpt_bench
from cpt_bench.cli.options import TRIED, EngineName, EngineSettings, listed

export = typer.Typer(
    help="Write files for use elsewhere: the suite's questions, or an entry for the hub.",
    no_args_is_help=True,
)


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="One checkpoint, a folder or org/name[@revision] on the Hugging Face hub: its "
            "accuracy on every task and general benchmark."
        ),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="One checkpoint a stage, as a glob pattern: 'ckpt/stage-*'."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="The address of an OpenAI-compatible server.")
    ] = None,
    served: Annotated[
        str | None, typer.Option("--model", help="The name by which the server serves the model.")
    ] = None,
    suite: Annotated[str, typer.Option(help="The benchmark: a name or a folder.")] = TRIED,
    name: Annotated[
        str | None, typer.Option(help="The method's name [default: that of the model or folder].")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="The task order that was trained, with commas [default: the suite's]."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The model before stage 1, a folder or org/name[@revision] on the hub [default: "
            "the suite's base model]."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed it was trained with.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The run folder [default: one in runs, named by itself].")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Use only the first N samples of each split; the run is marked as limited."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    engine: EngineName = "transformers",
    engine_set: EngineSettings = None,
    share: Annotated[
        bool,
        typer.Option(help="Take finished evaluations from the other runs in the same folder."),
    ] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate what was trained elsewhere: whole models, PEFT adapters, or a model behind a server.

    With --stages, a whole run's matrix; with one MODEL or --endpoint, its row alone.
    """
    from cpt_bench.cli.progress import progress
    from cpt_bench.cli.tables import print_result

    with progress(quiet=json_) as display:
        result = cpt_bench.evaluate(
            model,
            suite,
            stages=stages,
            endpoint=endpoint,
            served=served,
            name=name,
            order=listed(order),
            base=base,
            seed=seed,
            limit=limit,
            engine=engine,
            engine_settings=engine_set or (),
            threads=threads,
            out=out,
            share=share,
            progress=display,
        )
    print_result(result, json_)


@export.callback()
def main() -> None:
    """Write files for use elsewhere: the suite's questions, or an entry for the hub."""


@export.command("prompts")
def prompts(
    out: Annotated[Path, typer.Option(help="A new folder to write to.")],
    suite: Annotated[str, typer.Option(help="The benchmark: a name or a folder.")] = TRIED,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Write only the first N questions of each split.")
    ] = None,
) -> None:
    """Write every test question as JSON lines with image files, without the gold answers."""
    from cpt_bench.run.lanes import export_prompts

    total = export_prompts(cpt_bench.open_suite(suite), out, limit)
    print(f"{total} questions in {out}; how to answer them: {out}/about.json")
