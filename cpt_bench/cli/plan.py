"""``cptbench plan``: what a run will cost, before anything is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpt_bench.errors import CptBenchError, did_you_mean

if TYPE_CHECKING:
    from cpt_bench.advice.estimate import Architecture
    from cpt_bench.suite import Suite


def plan(
    suite: Annotated[
        str, typer.Option(help="The benchmark; cpt7@mini is the small size of cpt7.")
    ] = "cpt7",
    trainer: Annotated[str, typer.Option(help="The kind of training: sft or rft.")] = "rft",
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs train.")] = 8,
    gpu: Annotated[str, typer.Option(help="Their model: a100-80, h100-80 or h200.")] = "a100-80",
    tier: Annotated[
        str | None, typer.Option(help="The suite's size [default: the suite's first].")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="The recipe: SUITE/NAME or a YAML file [default: adapters on one GPU, else all]."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the recipe to change (repeatable)."
        ),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Which checkpoints stay on disk: all, last or none.")
    ] = "all",
    json_: Annotated[bool, typer.Option("--json", help="Print the estimate as JSON.")] = False,
) -> None:
    """Estimate tokens, rollouts, memory, disk and hours of a run, with what is assumed."""
    from cpt_bench.advice import estimate as planning
    from cpt_bench.suite import open_suite
    from cpt_bench.suite.variants import compose

    if trainer not in ("sft", "rft"):
        raise CptBenchError(f"no figures for trainer {trainer!r}", todo="There is: sft, rft")
    if gpu not in planning.GPUS:
        raise CptBenchError(f"no GPU is called {gpu!r}", todo=did_you_mean(gpu, [*planning.GPUS]))
    if keep not in ("all", "last", "none"):
        raise CptBenchError(
            f"no such value: {keep!r}", where="--keep", todo="There is: all, last, none"
        )
    found = open_suite(compose(suite, None, tier))
    name = recipe or f"{found.name}/{trainer}" + (
        "-lora" if gpus == 1 and found.name == "cpt7" else ""
    )
    settings = _settings(trainer, name, set_ or [])
    result = estimate(found, trainer == "rft", settings, planning.GPUS[gpu], gpus, keep)
    result = {"suite": found.label, "trainer": trainer, "recipe": name, **result}
    print(json.dumps(result, indent=2) if json_ else text(result))


FOREIGN = {"sft": "prompts_per_step", "rft": "batch_size"}
"""Kind of training to a setting that only recipes of the other kind have."""


def _settings(trainer: str, recipe: str, changes: list[str]) -> dict[str, Any]:
    """A recipe with ``--set`` over it, without importing a trainer."""
    from cpt_bench.advice.estimate import DEFAULTS
    from cpt_bench.settings import value_of
    from cpt_bench.stage.recipes import named

    chosen = named(recipe)
    if FOREIGN[trainer] in chosen:
        other = next(kind for kind in FOREIGN if kind != trainer)
        what = f"{recipe} sets {FOREIGN[trainer]}, which {trainer} does not have"
        raise CptBenchError(what, where="--recipe", todo=f"Plan it with --trainer {other}")
    settings = {**DEFAULTS, **chosen}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or key not in settings:
            what = f"no setting is called {key!r}" if equals else "is not key=value"
            raise CptBenchError(
                what, where=f"--set {change!r}", todo=did_you_mean(key, [*settings])
            )
        settings[key] = value_of(value)
    return settings


def _model(suite: Suite) -> Architecture:
    from cpt_bench.advice.estimate import MODELS, Architecture
    from cpt_bench.files import read_json

    if suite.base_model in MODELS:
        return MODELS[suite.base_model]
    file = Path(suite.base_path()) / "config.json"
    if not file.is_file():
        raise CptBenchError(
            f"nothing is known of base model {suite.base_model!r}",
            todo=f"Give a suite whose base is a folder, or one of {', '.join(MODELS)}",
        )
    return Architecture.of(read_json(file))


def estimate(
    suite: Suite, rl: bool, settings: dict[str, Any], gpu: Any, gpus: int, keep: str
) -> dict[str, Any]:
    """The whole plan as JSON."""
    from cpt_bench.advice import estimate as p

    model, assumed = _model(suite), p.ASSUMED
    stages = [
        p.stage(t, suite.card(t).splits["train"].n, rl, settings, model, gpu, gpus, assumed)
        for t in suite.sequence
    ]
    tested = p.evaluation(
        {t: suite.card(t).splits["test"].n for t in suite.sequence},
        {t: suite.card(t).splits["test"].n for t in suite.general},
        suite.protocol.general == "every-stage",
        rl,
        model,
        gpu,
        gpus,
        assumed,
        vllm=False,
    )
    most = max(p.picture(t, settings, model, assumed) for t in suite.sequence)
    reply = suite.protocol.decoding.max_new_tokens if rl else assumed.target
    memory = p.memory(rl, settings, model, gpu, gpus, assumed.words + most + reply)
    width = 2 if settings["dtype"] == "bfloat16" else 4
    return {
        "gpus": gpus,
        "gpu": gpu.name,
        "parameters": model.parameters,
        "stages": [s._asdict() for s in stages],
        "evaluation": tested._asdict(),
        "memory_gib": {**memory._asdict(), "total": memory.total, "has": gpu.memory},
        "fits": memory.total <= gpu.memory,
        "disk_gib": {"checkpoints": p.disk(model, len(stages), keep, width), "keep": keep},
        "hours": {
            "one after the other": p.hours_of(stages, tested, overlap=False),
            "evaluation beside training": p.hours_of(stages, tested, overlap=True),
        },
        "assumed": {**assumed._asdict(), "pixels": dict(assumed.pixels)},
    }


def text(r: dict[str, Any]) -> str:
    """The plan as a page."""
    lines = [
        f"{r['suite']}, {r['trainer']} with {r['recipe']}, on {r['gpus']} x {r['gpu']}",
        f"base model {r['parameters']:,} weights\n",
        f"{'stage':<12}{'samples':>9}{'epochs':>8}{'steps':>8}{'rollouts':>11}"
        f"{'tokens trained':>17}{'written':>11}{'train h':>9}{'rollout h':>11}",
    ]
    keys = ("samples", "steps", "rollouts", "trained", "written", "train_hours", "rollout_hours")
    total = {key: sum(s[key] for s in r["stages"]) for key in keys}
    for s in [*r["stages"], {**total, "task": "all", "epochs": ""}]:
        lines.append(
            f"{s['task']:<12}{s['samples']:>9,}{s['epochs']:>8}{s['steps']:>8,}{s['rollouts']:>11,}"
            f"{s['trained'] / 1e6:>15,.1f} M{s['written'] / 1e6:>9,.1f} M"
            f"{s['train_hours']:>9.1f}{s['rollout_hours']:>11.1f}"
        )
    tested, memory, disk, a = r["evaluation"], r["memory_gib"], r["disk_gib"], r["assumed"]
    parts = ", ".join(f"{k} {memory[k]:.1f}" for k in memory if k not in ("total", "has"))
    verdict = "fits" if r["fits"] else "DOES NOT FIT"
    lines += [
        f"\nevaluation   {tested['questions']:,} questions, {tested['written'] / 1e6:.1f} M tokens "
        f"written, {tested['hours']:.1f} h on one GPU with transformers",
        f"memory       {memory['total']:.1f} of {memory['has']:.0f} GiB a GPU: {verdict} ({parts})",
        f"disk         {disk['checkpoints']:.0f} GiB of checkpoints with --keep {disk['keep']}, "
        "and the data sets come on top",
        "time         "
        + ", or ".join(f"{h:.0f} h with {how}" for how, h in r["hours"].items())
        + ": good to a factor of two at best",
        "\nassumed:",
        f"  a question has {a['words']:.0f} tokens of words; an answer {a['target']:.0f}, a reply "
        f"that thinks {a['thought']:.0f}",
        "  pictures have (thousand pixels) "
        + ", ".join(f"{t or 'other'} {n / 1e3:.0f}" for t, n in a["pixels"].items()),
        f"  training reaches {a['use_training']:.0%} of the GPU's peak, reading prompts "
        f"{a['use_prefill']:.0%}",
        f"  one GPU writes {a['decode']:.0f} tokens/s with vLLM at 7B, transformers "
        f"{a['transformers']:.0f} times fewer; {a['start']:.0f} s to start an engine",
        "  data sets are not counted in disk and hours; attention's own products are left out",
    ]
    return "\n".join(lines)
