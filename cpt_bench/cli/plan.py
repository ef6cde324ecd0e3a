"""``cptbench plan``: what a run will cost, before anything is downloaded."""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Any

import typer

from cpt_bench.cli.options import PLANNED, PLANNED_TRAINER


def plan(
    suite: Annotated[
        str, typer.Option(help="The benchmark; SUITE@TIER is another size of it.")
    ] = PLANNED,
    trainer: Annotated[
        str, typer.Option(help="The trainer, as for cptbench run, but not a command.")
    ] = PLANNED_TRAINER,
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs train.")] = 8,
    gpu: Annotated[str, typer.Option(help="Their model: a100-80, h100-80 or h200.")] = "a100-80",
    tier: Annotated[
        str | None, typer.Option(help="The suite's size [default: the suite's first].")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="The recipe: SUITE/NAME or a YAML file [default: the trainer's own; where that "
            "does not fit these GPUs, the first of its smaller ones that does]."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the recipe to change (repeatable)."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Start from this checkpoint, a folder or org/name on the hub, instead."),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Which checkpoints stay on disk: all, last or none.")
    ] = "all",
    json_: Annotated[bool, typer.Option("--json", help="Print the estimate as JSON.")] = False,
) -> None:
    """Estimate tokens, rollouts, memory, disk and hours of a run, with what is assumed."""
    from cpt_bench.advice.plan import Asked
    from cpt_bench.advice.plan import plan as planned
    from cpt_bench.suite import open_suite
    from cpt_bench.suite.variants import compose

    found = open_suite(compose(suite, None, tier))
    result = planned(found, Asked(trainer, recipe, tuple(set_ or ()), gpu, gpus, keep, base))
    print(json.dumps(result, indent=2) if json_ else text(result))


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
    for s in [*r["stages"], {**total, "task": "all", "epochs": None}]:
        epochs = "" if s["epochs"] is None else f"{s['epochs']:g}"
        lines.append(
            f"{s['task']:<12}{s['samples']:>9,}{epochs:>8}{s['steps']:>8,}{s['rollouts']:>11,}"
            f"{s['trained'] / 1e6:>15,.1f} M{s['written'] / 1e6:>9,.1f} M"
            f"{s['train_hours']:>9.1f}{s['rollout_hours']:>11.1f}"
        )
    tested, memory, disk, a = r["evaluation"], r["memory_gib"], r["disk_gib"], r["assumed"]
    parts = ", ".join(f"{k} {memory[k]:.1f}" for k in memory if k not in ("total", "has"))
    verdict = "fits" if r["fits"] else "DOES NOT FIT"
    if r["fits_on"]:
        verdict += f"; it would on {r['fits_on']} of them"
    lines += [
        f"\nevaluation   {tested['questions']:,} questions, {tested['written'] / 1e6:.1f} M tokens "
        f"written, {tested['hours']:.1f} h on one GPU with transformers",
        f"memory       {memory['total']:.1f} of {memory['has']:.0f} GiB a GPU: {verdict} ({parts})",
        f"disk         {disk['checkpoints']:.0f} GiB of checkpoints with --keep {disk['keep']}, "
        "and the data sets come on top",
        "time         "
        + ", or ".join(f"{h:.0f} h ({how})" for how, h in r["hours"].items())
        + "; correct to a factor of two at best",
        f"run it with  {shlex.join(r['options']) or 'no further options'}",
        "\nassumed:",
        f"  a question has {a['words']:.0f} tokens of words; an answer {a['target']:.0f}, a reply "
        f"that thinks {a['thought']:.0f}",
        "  pictures have (thousand pixels) "
        + ", ".join(f"{t} {n / 1e3:.0f}" for t, n in a["pixels"].items()),
        f"  training reaches {a['use_training']:.0%} of the GPU's peak, reading prompts "
        f"{a['use_prefill']:.0%}",
        f"  one GPU writes {a['decode']:.0f} tokens/s with vLLM at {a['decode_weights'] / 1e9:.0f} "
        f"billion weights, transformers {a['transformers']:.0f} times fewer; {a['start']:.0f} s to "
        "start an engine",
        f"  {sources(r['sources'], r['gpu'])}",
        "  data sets are not counted in disk and hours; attention's own products are left out",
    ]
    if r["uncounted"]:
        lines.append(f"  what these settings add is not counted: {', '.join(r['uncounted'])}")
    return "\n".join(lines)


def sources(found: dict[str, str], gpu: str) -> str:
    """Which of the constants were measured, and on which card."""
    measured = [name for name, source in found.items() if source != "assumed"]
    if not measured:
        return f"none of this was measured on the {gpu}"
    return f"{found[measured[0]]}: {', '.join(measured)}"
