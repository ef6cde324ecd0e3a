"""Has the checkpoints of one run answered: in a process each, or by one engine that is kept.

An engine on a GPU is dear to start: its process lives as long as the run, and each checkpoint's
weights are put in the place of the last one's. Where that cannot be, because a checkpoint differs
in more than its weights or the engine has no ``swap``, the process ends, so that all of its memory
is given back, and another one opens the engine anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpt_bench import jobs
from cpt_bench.engines.swapping import difference, frame

if TYPE_CHECKING:
    from cpt_bench.runner import Sequencer
    from cpt_bench.worker import Worker

Event = dict[str, Any]


class Evaluator:
    """What answers for one run; asked by one thread at a time where the engine is kept."""

    def __init__(self, run: Sequencer) -> None:
        self.run = run
        self.kept: Worker | None = None
        self.frame: dict[str, str] = {}

    def answer(self, t: int, names: list[str], inputs: dict[str, dict[str, Any]]) -> None:
        """Evaluate stage ``t`` on ``names`` and commit each to the ledger as it is done.

        Args:
            t: The stage.
            names: Tasks and general benchmarks.
            inputs: Of each, what goes into its key.

        Raises:
            CptBenchError: The evaluation failed, or its process died.
        """
        run, what = self.run, f"stage {t}, evaluation"
        order = self._order(t, names)

        def on_event(event: Event) -> None:
            if event["kind"] == "evaluated":
                name = event["name"]
                output = [run.paths.relative(run.paths.predictions(t, name))]
                step = f"stage-{t}/evaluate/{name}"
                facts, seconds = {"weights": run.weights[t]}, event["seconds"]
                run.done.append(run.ledger.commit(step, inputs[name], output, facts, seconds))
                run.tell_cell(t, name)

        if not run.plan.engine.kept or run.plan.endpoint:
            run.result(run.worker(jobs.evaluate, (order,), t, "evaluate", what), t, on_event)
            return
        worker = self._kept_for(order, t, what)

        def heard(event: Event) -> None:
            on_event(event)
            run.tell({"stage": t, **event})

        try:
            worker.ask(order, what, heard)
        except BaseException:
            self.kept = None  # it has ended
            run.workers.discard(worker)
            raise

    def close(self) -> None:
        """End the kept process, if there is one: what it holds is given back."""
        if self.kept is not None:
            self.kept.stop()
            self.run.workers.discard(self.kept)
            self.kept = None

    def _kept_for(self, order: jobs.EvaluateOrder, t: int, what: str) -> Worker:
        """The process that can take ``order``: the one that is there, or a new one."""
        assert not isinstance(order.checkpoint, str)
        new = frame(order.checkpoint)
        if self.kept is not None and (
            not self.run.plan.engine.swaps or difference(self.frame, new) is not None
        ):
            self.close()
        if self.kept is None:
            self.kept = self.run.worker(jobs.evaluate_each, None, t, "evaluate", what)
        self.frame = new
        return self.kept

    def _order(self, t: int, names: list[str]) -> jobs.EvaluateOrder:
        run, plan = self.run, self.run.plan
        name, settings = plan.engine.name, plan.engine.settings
        if plan.endpoint:
            journal = run.paths.root / "endpoint.jsonl"
            asked = {key: value for key, value in plan.endpoint.items() if key != "url"}
            name, settings = "endpoint", {**plan.server, **asked, "journal": journal}
        return jobs.EvaluateOrder(
            suite_folder=plan.suite.place,
            checkpoint=plan.place if plan.endpoint else run.checkpoint(t),
            weights=run.weights[t],
            engine=name,
            settings=settings,
            names=names,
            outputs=[run.paths.predictions(t, name) for name in names],
            limit=plan.limit,
            threads=plan.threads,
            data=run.data,
        )
