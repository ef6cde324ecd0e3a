"""Evaluating a stage: a step for each benchmark, by a worker a stage or by one that stays.

An engine on a GPU is slow to open, so its worker lives as long as the run, and each checkpoint's
weights are put in the place of the last one's. Where that cannot be, because a checkpoint differs
in more than its weights or the engine has no ``swap``, the worker ends, so that all of its memory
is given back, and another one opens the engine anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cpt_bench.engines.swapping import difference, frame
from cpt_bench.files import read_jsonl
from cpt_bench.run import keys
from cpt_bench.run.context import Context, Event, Policy
from cpt_bench.run.jobs.evaluate import EvaluateJob, evaluate, evaluate_each
from cpt_bench.run.plan import Plan
from cpt_bench.run.steps import Commit, Step, carry_out
from cpt_bench.worker.process import Worker

T = TypeVar("T")


class Evaluator:
    """Evaluates the checkpoints of one run; used by one thread at a time.

    Args:
        context: The run.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.worker: Worker | None = None
        self.frame: dict[str, str] = {}

    def evaluate(self, t: int, policy: Policy) -> None:
        """Answer and grade all benchmarks that are due after stage ``t``.

        Raises:
            CptBenchError: The evaluation failed, or its process died.
        """
        context, plan = self.context, self.context.plan
        steps = {
            name: Step(
                f"stage-{t}/evaluate/{name}",
                keys.evaluation(plan, context.identity, policy, name),
                (context.paths.relative(context.paths.predictions(t, name)),),
            )
            for name in plan.suite.benchmarks_after(t)
        }
        names = {step.name: name for name, step in steps.items()}

        def work(todo: Sequence[Step], commit: Commit) -> None:
            def answer(part: list[Step]) -> None:
                def written(event: Event) -> None:
                    if event["kind"] == "written":
                        facts = {"weights": policy.weights}
                        commit(steps[event["name"]], facts, event["seconds"])

                self._run(t, self._job(t, policy, [names[s.name] for s in part]), written)

            in_parts(halves(plan, self.context.workers.train, todo), answer)

        carry_out(
            context.ledger,
            [*steps.values()],
            work,
            lambda step, record: self._tell(t, names[step.name]),
        )

    def close(self) -> None:
        """Stop the worker that stays, if there is one: what it holds is given back."""
        if self.worker is not None:
            self.context.workers.end(self.worker)
            self.worker = None

    def _tell(self, t: int, name: str) -> None:
        rows = read_jsonl(self.context.paths.predictions(t, name))
        accuracy = 100 * sum(row["score"] for row in rows) / len(rows)
        self.context.tell(
            {"kind": "cell", "stage": t, "name": name, "accuracy": accuracy, "n": len(rows)}
        )

    def _run(self, t: int, job: EvaluateJob, on_event: Callable[[Event], None]) -> None:
        """Have a worker do ``job``."""
        context, what = self.context, f"stage {t}, evaluation"
        tell = context.tell_of(t)

        def heard(event: Event) -> None:
            on_event(event)
            tell(event)

        log = context.paths.log(t, "evaluate")
        if not context.plan.engine.kept or context.plan.endpoint:
            context.workers.result(context.workers.start(evaluate, job, log, what), heard)
            return
        worker = self._worker_for(job, log, what)
        try:
            worker.ask(job, what, heard)
        except BaseException:
            context.workers.running.discard(worker)  # it has ended
            self.worker = None
            raise

    def _worker_for(self, job: EvaluateJob, log: Path, what: str) -> Worker:
        """The worker that can take ``job``: the one that runs, or a new one."""
        assert not isinstance(job.checkpoint, str)
        new = frame(job.checkpoint)
        swaps = self.context.plan.engine.swaps and difference(self.frame, new) is None
        if self.worker is not None and not swaps:
            self.close()
        if self.worker is None:
            self.worker = self.context.workers.start(evaluate_each, None, log, what)
        self.frame = new
        return self.worker

    def _job(self, t: int, policy: Policy, names: Sequence[str]) -> EvaluateJob:
        context, plan = self.context, self.context.plan
        engine, settings = plan.engine.name, plan.engine.settings
        if plan.endpoint:
            journal = context.paths.root / "endpoint.jsonl"
            served = {key: value for key, value in plan.endpoint.items() if key != "url"}
            engine, settings = "endpoint", {**plan.server, **served, "journal": journal}
        return EvaluateJob(
            suite_folder=plan.suite.place,
            checkpoint=policy.folder,
            weights=policy.weights,
            engine=engine,
            settings=settings,
            names=tuple(names),
            outputs=tuple(context.paths.predictions(t, name) for name in names),
            limit=plan.limit,
            threads=plan.threads,
            data=context.data,
        )


def halves(plan: Plan, trains: bool, items: Sequence[T]) -> list[list[T]]:
    """``items`` in the parts that are done at the same time: two where nothing trains, else one."""
    # Two parts would be two engines on the GPUs that are set aside.
    one = plan.endpoint or plan.engine.kept or plan.devices.evaluation is not None
    if not plan.overlap or trains or one:
        return [list(items)]
    return [list(part) for part in (items[::2], items[1::2]) if part]


def in_parts(parts: Sequence[T], work: Callable[[T], Any]) -> None:
    """``work`` on each part, all at the same time."""
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        for done in [pool.submit(work, part) for part in parts]:
            done.result()
