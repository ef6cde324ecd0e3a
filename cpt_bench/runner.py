"""The sequence: train on a task, evaluate everything, go on from there.

:func:`run` is the whole of a benchmark run. It decides what to do next; the doing happens in worker
processes (:mod:`cpt_bench.jobs`), and what was done is in the ledger. Training stage t+1 needs
only the weights of stage t, so that stage t is evaluated meanwhile where there are two cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench import environment, jobs
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json, read_jsonl, write_json
from cpt_bench.ledger import Ledger
from cpt_bench.plugins import Resolved
from cpt_bench.policy import weights_digest
from cpt_bench.rundir import RunFolder
from cpt_bench.scoring import Scores, write_scores
from cpt_bench.suite import Suite
from cpt_bench.trainer import TrainerConfig
from cpt_bench.worker import Worker

Event = dict[str, Any]


class Plan(NamedTuple):
    """All that defines a run.

    Attributes:
        suite_spec: The suite's name or place, as given.
        suite: The suite, in the order to train.
        trainer: The resolved trainer.
        config: Its settings.
        seed: Seeds every stage.
        limit: Only the first so many samples of each split; None for all. A limited run is marked.
        threads: Threads of a training or evaluating process; arithmetic depends on it.
        overlap: Evaluate a stage while the next one trains.
        keep: Which checkpoints stay: ``all``, ``last`` or ``none``.
        base: The checkpoint to start from.
        launch: ``torchrun …`` or ``accelerate launch …``: train on several processes.
    """

    suite_spec: str
    suite: Suite
    trainer: Resolved
    config: TrainerConfig
    seed: int
    limit: int | None
    threads: int
    overlap: bool
    keep: str
    base: Path
    launch: str | None = None

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "suite": {
                "spec": self.suite_spec,
                "name": self.suite.name,
                "version": self.suite.version,
                "fingerprint": self.suite.fingerprint(),
            },
            "trainer": self.trainer.name,
            "origin": self.trainer.origin,
            "config": self.config.model_dump(mode="json"),
            "privileges": self.trainer.value.privileges.model_dump(),
            "seed": self.seed,
            "order": list(self.suite.sequence),
            "limit": self.limit,
            "threads": self.threads,
            "base": {"path": str(self.suite.base_model), "weights": weights_digest(self.base)},
            "versions": environment.versions(),
            # How many processes trained changes the arithmetic, and with it the weights.
            **({"launch": self.launch} if self.launch else {}),
        }


def run(
    plan: Plan, folder: Path, shared: Path | None, tell: Callable[[Event], None]
) -> tuple[Scores, dict[str, Any]]:
    """Carry out ``plan`` in ``folder``; what is already done there is not done again.

    Args:
        plan: What to run.
        folder: The run folder; it may hold an earlier, unfinished part of the same run.
        shared: Where runs beside this one look for finished stages; None to share nothing.
        tell: Receives progress events.

    Returns:
        The scores, and where the time went in seconds.

    Raises:
        CptBenchError: A stage failed. What was committed stays.
    """
    identity = plan.identity()
    paths = RunFolder(folder, plan.suite.sequence)
    _open(paths, identity)
    sequence = Sequencer(plan, identity, paths, Ledger(folder, shared), tell)
    start = time.monotonic()
    sequence.run()
    scores = write_scores(folder)
    costs = {**sequence.costs(), "wall_seconds": round(time.monotonic() - start, 2)}
    _close(paths, costs)
    return scores, costs


def _open(paths: RunFolder, identity: dict[str, Any]) -> None:
    """Begin or continue the run in a folder; another run's folder is refused."""
    if paths.run_json.exists():
        found = read_json(paths.run_json)
        for key, value in identity.items():
            if found.get(key) != value:
                raise CptBenchError(
                    f"holds another run: its {key} is {found.get(key)!r}, not {value!r}"[:400],
                    where=paths.root,
                    todo="Give another --out, or delete the folder",
                )
        return
    run = {"format": 1, **identity, "hardware": environment.hardware()}
    write_json(paths.run_json, {**run, "git": environment.git_state(), "sessions": []})


def _close(paths: RunFolder, costs: dict[str, Any]) -> None:
    """Note what this session of the run cost; a session that found all done notes nothing."""
    run = read_json(paths.run_json)
    if costs["steps_done"]:
        write_json(paths.run_json, {**run, "sessions": [*run["sessions"], costs]})


class Sequencer:
    """The state of one run: which weights each stage has, what is being evaluated."""

    def __init__(
        self,
        plan: Plan,
        identity: dict[str, Any],
        paths: RunFolder,
        ledger: Ledger,
        tell: Callable[[Event], None],
    ) -> None:
        self.plan, self.identity, self.paths = plan, identity, paths
        self.ledger, self.tell = ledger, tell
        self.weights: dict[int, str] = {0: identity["base"]["weights"]}
        self.states: dict[int, str] = {}
        self.done: list[dict[str, Any]] = []
        self.workers: set[Worker] = set()
        self.stopping = False
        self.lock = threading.Lock()

    def run(self) -> None:
        """All stages, each evaluated, in order."""
        stages = range(len(self.plan.suite.sequence) + 1)
        pool = ThreadPoolExecutor(max_workers=1)
        evaluations: dict[int, Future[None]] = {}
        try:
            for t in stages:
                if t > 0:
                    self._train(t)
                evaluations[t] = pool.submit(self._evaluate, t)
                if not self.plan.overlap:
                    evaluations[t].result()
                for earlier in evaluations.values():
                    if earlier.done():
                        earlier.result()  # an evaluation that failed stops the run now
                self._forget_weights(t, evaluations)
            for t in stages:
                evaluations[t].result()
                self._forget_weights(t, evaluations)
            if self.plan.keep == "none":
                self._drop(stages[-1])
        finally:
            with self.lock:
                self.stopping = True
            for worker in list(self.workers):
                worker.stop()
            pool.shutdown(cancel_futures=True)

    # ---------------------------------------------------------------------- training

    def _train(self, t: int) -> None:
        suite, name = self.plan.suite, f"stage-{t}/train"
        task = suite.sequence[t - 1]
        inputs = {
            "task": suite.card(task).model_dump(mode="json"),
            "protocol": suite.protocol.model_dump(mode="json"),
            "parent": self.weights[t - 1],
            "state": self.states.get(t - 1),
            "earlier": list(suite.sequence[: t - 1]),
            **{k: self.identity[k] for k in ("origin", "config", "limit", "threads", "versions")},
            "seed": stage_seed(self.plan.seed, t),
            **({"launch": self.plan.launch} if self.plan.launch else {}),
        }
        record = self.ledger.find(name, inputs)
        if record is None:
            self.tell({"kind": "train", "stage": t, "task": task, "step": 0, "steps": 0})
            order = jobs.TrainOrder(
                suite_folder=suite.place,
                task=task,
                index=t,
                trainer=self.plan.trainer.origin["spec"],
                config=self.plan.config.model_dump(),
                seed=inputs["seed"],
                limit=self.plan.limit,
                threads=self.plan.threads,
                policy=self._checkpoint(t - 1),
                output=self.paths.checkpoint(t),
                earlier_state=self.paths.state(t - 1) if t > 1 else None,
                state=self.paths.state(t),
                train_log=self.paths.train_log(t),
                launch=self.plan.launch,
            )
            what = f"stage {t} ({task}), training"
            start = time.monotonic()
            facts = self._work(jobs.train, order, t, "train", what)
            written = (self.paths.checkpoint(t), self.paths.state(t), self.paths.train_log(t))
            outputs = [self.paths.relative(p) for p in written]
            record = self.ledger.commit(name, inputs, outputs, facts, time.monotonic() - start)
            self.done.append(record)
        self.weights[t] = record["facts"]["weights"]
        self.states[t] = record["outputs"][self.paths.relative(self.paths.state(t))]
        self.tell({"kind": "trained", "stage": t, "task": task, "reused": record.get("reused")})

    def _checkpoint(self, t: int) -> Path:
        return self.plan.base if t == 0 else self.paths.checkpoint(t)

    def _forget_weights(self, t: int, evaluations: dict[int, Future[None]]) -> None:
        """Drop the weights of the stage before ``t`` once it is evaluated and trained on."""
        before = t - 1
        if self.plan.keep != "all" and before > 0 and evaluations[before].done():
            self._drop(before)

    def _drop(self, t: int) -> None:
        if self.paths.checkpoint(t).exists():
            self.ledger.drop(f"stage-{t}/train", self.paths.relative(self.paths.checkpoint(t)))

    # -------------------------------------------------------------------- evaluation

    def _evaluate(self, t: int) -> None:
        suite, stages = self.plan.suite, len(self.plan.suite.sequence)
        names = list(suite.sequence)
        if suite.protocol.general == "every-stage" or t in (0, stages):
            names += suite.general
        inputs = {name: self._evaluation_inputs(t, name) for name in names}
        todo = []
        for name in names:
            if self.ledger.find(f"stage-{t}/evaluate/{name}", inputs[name]) is None:
                todo.append(name)
            else:
                self._tell_cell(t, name)
        if not todo:
            return
        order = jobs.EvaluateOrder(
            suite_folder=suite.place,
            checkpoint=self._checkpoint(t),
            weights=self.weights[t],
            names=todo,
            outputs=[self.paths.predictions(t, name) for name in todo],
            limit=self.plan.limit,
            threads=self.plan.threads,
        )

        def on_event(event: Event) -> None:
            if event["kind"] == "evaluated":
                name = event["name"]
                output = [self.paths.relative(self.paths.predictions(t, name))]
                step = f"stage-{t}/evaluate/{name}"
                facts, seconds = {"weights": self.weights[t]}, event["seconds"]
                self.done.append(self.ledger.commit(step, inputs[name], output, facts, seconds))
                self._tell_cell(t, name)

        what = f"stage {t}, evaluation"
        self._work(jobs.evaluate, order, t, "evaluate", what, on_event)

    def _evaluation_inputs(self, t: int, name: str) -> dict[str, Any]:
        return {
            "weights": self.weights[t],
            "card": self.plan.suite.card(name).model_dump(mode="json"),
            "protocol": self.plan.suite.protocol.model_dump(mode="json"),
            "engine": "transformers",
            **{k: self.identity[k] for k in ("limit", "threads", "versions")},
        }

    def _tell_cell(self, t: int, name: str) -> None:
        rows = read_jsonl(self.paths.predictions(t, name))
        score = 100 * sum(row["score"] for row in rows) / len(rows)
        self.tell({"kind": "cell", "stage": t, "name": name, "accuracy": score, "n": len(rows)})

    # ------------------------------------------------------------------------- common

    def _work(
        self,
        work: Callable[..., Any],
        order: Any,
        t: int,
        log: str,
        what: str,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Any:
        with self.lock:
            if self.stopping:
                raise CptBenchError(f"{what}: the run is being stopped")
            worker = Worker(work, (order,), self.paths.log(t, log), what)
            self.workers.add(worker)

        def heard(event: Event) -> None:
            on_event(event)
            self.tell({"stage": t, **event})

        try:
            return worker.result(heard)
        finally:
            self.workers.discard(worker)

    def costs(self) -> dict[str, Any]:
        """Seconds of this session by what they were spent on, from the steps it did."""
        trained = [r for r in self.done if r["step"].endswith("/train")]
        evaluated = [r for r in self.done if "/evaluate/" in r["step"]]
        generation = sum(r["facts"]["generation_seconds"] for r in trained)
        return {
            "steps_done": len(self.done),
            "train_seconds": round(sum(r["seconds"] for r in trained), 2),
            "generation_seconds": round(generation, 2),
            "evaluate_seconds": round(sum(r["seconds"] for r in evaluated), 2),
        }


def stage_seed(seed: int, stage: int) -> int:
    """The seed of one stage: differs from stage to stage and between runs."""
    return seed * 100 + stage
