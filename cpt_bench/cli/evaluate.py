"""``cptbench eval`` and ``cptbench export``: methods that were trained elsewhere."""

from __future__ import annotations

import glob
import itertools
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cpt_bench.cli.options import EngineName, EngineSettings
from cpt_bench.errors import CptBenchError

export = typer.Typer(help="What others need to answer the suite's questions.", no_args_is_help=True)


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(help="One checkpoint: its zero-shot row and general scores.")
    ] = None,
    stages: Annotated[
        str | None, typer.Option(help="A glob of checkpoints, one a stage: 'ckpt/stage-*'.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI-compatible server.")
    ] = None,
    served: Annotated[
        str | None, typer.Option("--model", help="The name by which the server serves the model.")
    ] = None,
    suite: Annotated[str, typer.Option(help="The benchmark.")] = "nano",
    name: Annotated[str | None, typer.Option(help="The method's name.")] = None,
    order: Annotated[
        str | None, typer.Option(help="The task order that was trained, with commas.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="The model before stage 1 [the suite's].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed it was trained with.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The run folder [runs/<what it is>].")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N samples of each split (marked).")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    engine: EngineName = "transformers",
    engine_set: EngineSettings = None,
    share: Annotated[
        bool, typer.Option(help="Take finished evaluations from runs beside this one.")
    ] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate what was trained elsewhere: whole models, PEFT adapters, or a model behind a server.

    With --stages, a whole run's matrix; with one MODEL or --endpoint, its row alone.
    """
    from cpt_bench.cli.run import carry_out
    from cpt_bench.cli.score import need_training_extra

    if [model, stages, endpoint].count(None) != 2:
        raise CptBenchError(
            "give one MODEL, or --stages, or --endpoint", todo="cptbench eval --help shows them"
        )
    if base is not None and stages is None:
        raise CptBenchError(
            "--base goes with --stages: it is the model before stage 1",
            todo="One MODEL, or a server's, is a row of its own: leave --base out",
        )
    if (endpoint is None) != (served is None):
        raise CptBenchError("--endpoint and --model go together")
    if endpoint is not None and engine not in ("transformers", "endpoint"):
        raise CptBenchError("the server answers", where="--endpoint", todo="Leave --engine out")
    if endpoint is None:
        need_training_extra()
    from cpt_bench import devices
    from cpt_bench.engines.choice import EngineChoice, asking, choose
    from cpt_bench.lanes import find_stages
    from cpt_bench.method import Method
    from cpt_bench.run_plan import Plan
    from cpt_bench.sources import require_prepared
    from cpt_bench.suite import open_suite
    from cpt_bench.worker import warm_up

    found = open_suite(suite)
    if order is not None:
        found = found.reordered(tuple(order.split(",")))
    given = find_stages(stages, found) if stages is not None else {}
    require_prepared(found, suite)
    server = asking(engine_set or ()) if endpoint is not None else {}
    chosen = EngineChoice() if endpoint is not None else choose(engine, engine_set or ())
    gpus = devices.visible()
    beside, seen = devices.divide(gpus, 0, None, os.cpu_count() or 1, chosen.gpus)
    # Nothing trains: one engine may stay for all stages.
    chosen = chosen._replace(kept=bool(gpus) or chosen.name == "vllm")
    if endpoint is None:
        warm_up()
    title = name or (served or "").rpartition("/")[2]
    title = title or (model.name if model is not None else _title(stages or ""))
    folder = out or Path("runs") / f"{found.label}-{title}-seed{seed}"
    lane = "endpoint" if endpoint else "checkpoints"
    plan = Plan(
        suite_spec=suite,
        suite=found,
        method=Method(title, {"spec": f"{lane}:{title}"}, {}),
        seed=seed,
        limit=limit,
        threads=threads,
        overlap=beside,
        keep="all",
        base=base or model or found.base_path(),
        lane=lane,
        given=given,
        endpoint=_asked(folder, endpoint, served, server.pop("extra", None))
        if endpoint and served
        else None,
        server=server,
        engine=chosen,
        devices=seen,
    )
    carry_out(plan, folder, share, json_)


def _title(pattern: str) -> str:
    """The name of the folder that holds the checkpoints, or of the run folder that they are in."""
    parts = itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parent.parts)
    folder = Path(*parts).resolve()
    return folder.parent.name if folder.name == "stages" else folder.name


def _asked(folder: Path, url: str, model: str, extra: Any) -> dict[str, Any]:
    """The server's address and model, with the nonce of this evaluation: old or new."""
    import uuid

    from cpt_bench.files import read_json

    asked = {"url": url, "model": model, **({"extra": extra} if extra else {})}
    if (folder / "run.json").exists():
        known = read_json(folder / "run.json").get("endpoint") or {}
        if {key: value for key, value in known.items() if key != "nonce"} == asked:
            return dict(known)
    return {**asked, "nonce": uuid.uuid4().hex}


@export.callback()
def main() -> None:
    """What others need to answer the suite's questions."""


@export.command("prompts")
def prompts(
    out: Annotated[Path, typer.Option(help="A new folder.")],
    suite: Annotated[str, typer.Option(help="The benchmark.")] = "nano",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N questions of each split.")
    ] = None,
) -> None:
    """Write every test question as JSON lines with image files; the gold answers stay here."""
    from cpt_bench.lanes import export_prompts
    from cpt_bench.suite import open_suite

    total = export_prompts(open_suite(suite), out, limit)
    print(f"{total} questions in {out}; how to answer them: {out}/about.json")
