"""Measures after evaluation: KL to the base, what kind each loss was, other harnesses.

Each is a step of the ledger like any other. A run that was finished before these were measured, and
whose weights were deleted since, stays without them; its metrics say 'not measured'.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt_bench import general
from cpt_bench.evaluation.divergence import GENERAL, NEW
from cpt_bench.files import read_jsonl, write_jsonl
from cpt_bench.results.losses import prefixes, to_ask
from cpt_bench.run import keys
from cpt_bench.run.context import Context, Event, Policy
from cpt_bench.run.evaluate import halves, in_parts
from cpt_bench.run.jobs import diagnose as diagnosis
from cpt_bench.run.jobs import divergence
from cpt_bench.run.jobs import general as harnesses
from cpt_bench.run.steps import Commit, Step, carry_out


def diverge(context: Context, t: int, policy: Policy, base: Policy) -> None:
    """KL(base || policy) after stage ``t``, on the prompts of its task and on general ones."""
    plan, paths = context.plan, context.paths
    new, *others = plan.suite.sequence[t - 1], *plan.suite.general
    prompts = {new: NEW, **dict.fromkeys(others, GENERAL)}
    replies = {name: paths.predictions(0, name) for name in prompts}
    if not Path(policy.folder).exists() or not all(file.exists() for file in replies.values()):
        return
    output = paths.divergence(t)
    inputs = keys.divergence(plan, context.identity, policy, base, prompts)
    step = Step(f"stage-{t}/kl", inputs, (paths.relative(output),))

    def work(steps: Sequence[Step], commit: Commit) -> None:
        found: dict[str, list[dict[str, Any]]] = {}

        def compare(part: list[str]) -> None:
            job = divergence.DivergenceJob(
                suite_folder=plan.suite.place,
                base=plan.base,
                checkpoint=Path(policy.folder),
                weights=policy.weights,
                predictions={name: replies[name] for name in part},
                prompts={name: prompts[name] for name in part},
                threads=plan.threads,
                data=context.data,
            )
            what = f"stage {t}, KL to the base"
            worker = context.workers.start(divergence.diverge, job, paths.log(t, "kl"), what)
            found.update(context.workers.result(worker, context.tell_of(t)))

        start = time.monotonic()
        in_parts(halves(plan, context.workers.train, [*prompts]), compare)
        write_jsonl(output, ({"name": name, **row} for name in prompts for row in found[name]))
        commit(step, {"weights": policy.weights}, time.monotonic() - start)

    carry_out(context.ledger, [step], work)


def diagnose(context: Context, t: int, policy: Policy) -> None:
    """Ask what was lost again, the reply's beginning forced; after the last stage alone."""
    plan, paths = context.plan, context.paths
    forced = prefixes(plan.suite.protocol)
    if t != len(plan.suite.sequence) or not forced or not Path(policy.folder).exists():
        return
    lost = _lost(context, t)
    files = {name: {p: paths.forced(t, p, name) for p in forced} for name in lost}
    steps = {
        name: Step(
            f"stage-{t}/diagnose/{name}",
            keys.diagnosis(plan, context.identity, policy, name, forced, ids),
            tuple(paths.relative(file) for file in files[name].values()),
        )
        for name, ids in lost.items()
    }

    def work(todo: Sequence[Step], commit: Commit) -> None:
        names = [name for name, step in steps.items() if step in todo]

        def ask(part: list[str]) -> None:
            job = diagnosis.DiagnoseJob(
                suite_folder=plan.suite.place,
                checkpoint=Path(policy.folder),
                weights=policy.weights,
                prefixes=forced,
                samples={name: lost[name] for name in part},
                outputs={name: files[name] for name in part},
                threads=plan.threads,
                data=context.data,
            )
            tell = context.tell_of(t)

            def heard(event: Event) -> None:
                if event["kind"] == "written":
                    facts = {"weights": policy.weights}
                    commit(steps[event["name"]], facts, event["seconds"])
                tell(event)

            log, what = paths.log(t, "diagnose"), f"stage {t}, diagnosis"
            worker = context.workers.start(diagnosis.diagnose, job, log, what)
            context.workers.result(worker, heard)

        in_parts(halves(plan, context.workers.train, names), ask)

    carry_out(context.ledger, [*steps.values()], work)


def _lost(context: Context, t: int) -> dict[str, list[str]]:
    """Benchmark to the ids of the samples that were lost by the end, where any were."""
    suite, lost = context.plan.suite, {}
    for name in (*suite.sequence, *suite.general):
        task = suite.sequence.index(name) if name in suite.sequence else None
        rows = [0, t] if task is None else [*range(1, t), t]
        files = {row: context.paths.predictions(row, name) for row in rows}
        if not all(file.exists() for file in files.values()):
            continue  # a joint run, or one model, has no stages between
        if ids := to_ask({row: read_jsonl(file) for row, file in files.items()}, task, t):
            lost[name] = ids
    return lost


def measure_others(context: Context, t: int, policy: Policy) -> None:
    """The benchmarks of other harnesses; see :mod:`cpt_bench.general`."""
    plan, paths = context.plan, context.paths
    for spec in map(general.parse, plan.general):
        written = general.paths(paths.general(t), spec)
        step = Step(
            f"stage-{t}/general/{spec.slug}",
            keys.general(context.identity, policy, spec.name, general.installed(spec)),
            tuple(paths.relative(file) for file in written),
        )

        def work(steps: Sequence[Step], commit: Commit, spec: general.Spec = spec) -> None:
            job = harnesses.GeneralJob(
                checkpoint=Path(policy.folder),
                weights=policy.weights,
                spec=spec.name,
                folder=paths.general(t),
                threads=plan.threads,
                limit=plan.limit,
            )
            start, what = time.monotonic(), f"stage {t}, {spec.name}"
            worker = context.workers.start(harnesses.measure, job, paths.log(t, "general"), what)
            context.workers.result(worker, context.tell_of(t))
            commit(steps[0], {"weights": policy.weights}, time.monotonic() - start)

        carry_out(context.ledger, [step], work)
