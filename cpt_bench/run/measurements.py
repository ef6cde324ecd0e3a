"""What a run asks of its checkpoints beside the evaluation: how far they moved, what they lost how.

Both are steps of the ledger like any other. A run that was finished before these were measured, and
whose weights were dropped since, stays without them; its metrics say 'not measured'.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cpt_bench import general
from cpt_bench.evaluation.divergence import GENERAL, NEW
from cpt_bench.files import read_jsonl
from cpt_bench.results.losses import prefixes, to_ask
from cpt_bench.run import jobs

if TYPE_CHECKING:
    from cpt_bench.run.sequencer import Sequencer

Event = dict[str, Any]


def diverge(run: Sequencer, t: int) -> None:
    """KL(base || policy) after stage ``t``, on the prompts of its task and on general ones."""
    suite = run.plan.suite
    names = [suite.sequence[t - 1], *suite.general]
    replies = {name: run.paths.predictions(0, name) for name in names}
    if not run.checkpoint(t).exists() or not all(file.exists() for file in replies.values()):
        return
    prompts = {name: NEW if name == names[0] else GENERAL for name in names}
    step, output = f"stage-{t}/kl", run.paths.divergence(t)
    inputs = {
        **run.evaluation_inputs(t, names[0]),
        "card": {name: suite.card(name).model_dump(mode="json") for name in names},
        "base": run.weights[0],
        **run.framed(0, "base_frame"),
        "prompts": prompts,
    }
    if run.ledger.find(step, inputs) is not None:
        return
    order = jobs.DivergenceOrder(
        suite_folder=suite.place,
        base=run.plan.base,
        checkpoint=run.checkpoint(t),
        weights=run.weights[t],
        predictions=replies,
        prompts=prompts,
        output=output,
        threads=run.plan.threads,
        data=run.data,
    )
    start = time.monotonic()
    run.result(run.worker(jobs.divergence, (order,), t, "kl", f"stage {t}, KL to the base"), t)
    facts, outputs = {"weights": run.weights[t]}, [run.paths.relative(output)]
    seconds = time.monotonic() - start
    run.done.append(run.ledger.commit(step, inputs, outputs, facts, seconds))


def diagnose(run: Sequencer, t: int) -> None:
    """Ask what was lost again, with the reply's beginning forced; after the last stage."""
    suite = run.plan.suite
    if t != len(suite.sequence) or not run.checkpoint(t).exists():
        return
    forced = prefixes(suite.protocol)
    if not forced:
        return
    wanted, inputs = {}, {}
    for name in (*suite.sequence, *suite.general):
        task = suite.sequence.index(name) if name in suite.sequence else None
        rows = [0, t] if task is None else [*range(1, t), t]
        files = {row: run.paths.predictions(row, name) for row in rows}
        if not all(file.exists() for file in files.values()):
            continue  # a joint run, or one model, has no stages between
        ids = to_ask({row: read_jsonl(file) for row, file in files.items()}, task, t)
        if not ids:
            continue
        inputs[name] = {**run.evaluation_inputs(t, name), "forced": forced, "ids": ids}
        if run.ledger.find(f"stage-{t}/diagnose/{name}", inputs[name]) is None:
            wanted[name] = ids
    if not wanted:
        return
    outputs = {name: {p: run.paths.forced(t, p, name) for p in forced} for name in wanted}

    def on_event(event: Event) -> None:
        if event["kind"] == "diagnosed":
            name = event["name"]
            written = [run.paths.relative(path) for path in outputs[name].values()]
            step = f"stage-{t}/diagnose/{name}"
            facts, seconds = {"weights": run.weights[t]}, event["seconds"]
            run.done.append(run.ledger.commit(step, inputs[name], written, facts, seconds))

    def ask(names: list[str]) -> None:
        order = jobs.DiagnoseOrder(
            suite_folder=suite.place,
            checkpoint=run.checkpoint(t),
            weights=run.weights[t],
            prefixes=forced,
            samples={name: wanted[name] for name in names},
            outputs={name: outputs[name] for name in names},
            threads=run.plan.threads,
            data=run.data,
        )
        worker = run.worker(jobs.diagnose, (order,), t, "diagnose", f"stage {t}, diagnosis")
        run.result(worker, t, on_event)

    run.in_halves(t, list(wanted), ask)


def measure_others(run: Sequencer, t: int) -> None:
    """The benchmarks of other harnesses; see :mod:`cpt_bench.general`."""
    for spec in map(general.parse, run.plan.general):
        name = f"stage-{t}/general/{spec.slug}"
        inputs = {
            "weights": run.weights[t],
            **run.framed(t),
            "benchmark": spec.name,
            "harness": general.installed(spec),
            **{k: run.identity[k] for k in ("limit", "threads", "versions")},
        }
        if run.ledger.find(name, inputs) is not None:
            continue
        order = jobs.GeneralOrder(
            checkpoint=run.checkpoint(t),
            weights=run.weights[t],
            specs=[spec.name],
            folder=run.paths.general(t),
            threads=run.plan.threads,
            options={spec.name: {"limit": run.plan.limit}},
        )
        start = time.monotonic()
        worker = run.worker(jobs.measure_general, (order,), t, "general", f"stage {t}, {spec.name}")
        run.result(worker, t)
        outputs = [run.paths.relative(p) for p in general.paths(run.paths.general(t), spec)]
        facts = {"weights": run.weights[t]}
        seconds = time.monotonic() - start
        run.done.append(run.ledger.commit(name, inputs, outputs, facts, seconds))
