"""The sequence: train on a task, evaluate everything, go on from there.

:func:`run` is the whole of a benchmark run. It decides what to do next; the doing happens in worker
processes (:mod:`cpt_bench.run.jobs`), and what was done is in the ledger. Training stage t+1 needs
only the weights of stage t, so that stage t is evaluated meanwhile where there are two cores.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cpt_bench import environment
from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.files import digest, read_json, read_jsonl, times_of_change, write_json, write_jsonl
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.scoring import Scores, write_scores
from cpt_bench.run import jobs
from cpt_bench.run.evaluator import Evaluator
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.measurements import diagnose, diverge, measure_others
from cpt_bench.run.plan import CHOSEN, Plan, digests, stage_seed
from cpt_bench.run.stages import PARTS, finish_stage, order_stage
from cpt_bench.stage import training
from cpt_bench.stage.split import check, prepared
from cpt_bench.worker.monitor import Limits
from cpt_bench.worker.process import Worker

Event = dict[str, Any]

TRAIN_KEYS = ("origin", "config", "privileges", "budget", "limit", "threads", "versions")
"""Of a run's identity, what can change a stage's training."""


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
    with alone(folder):
        identity = plan.identity()
        paths = RunFolder(folder, plan.suite.sequence)
        _open(paths, identity)
        stages = [paths.stage(t).name for t in range(len(plan.suite.sequence) + 1)]
        sequence = Sequencer(plan, identity, paths, Ledger(folder, shared, stages), tell)
        start = time.monotonic()
        sequence.run()
        scores = write_scores(folder)
        costs = {**sequence.costs(), "wall_seconds": round(time.monotonic() - start, 2)}
        _close(paths, costs)
        return scores, costs


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run folder: two of the same command would write under each other.

    Raises:
        CptBenchError: Another process holds it, or no folder can be there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CptBenchError("is no folder", where=folder, todo="Give another --out") from None
    with (folder / ".lock").open("w") as stream:  # let go of when the process ends, however it does
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CptBenchError(
                "another cptbench is working in this folder",
                where=folder,
                todo="Wait for it, or give another --out",
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def _open(paths: RunFolder, identity: dict[str, Any]) -> None:
    """Begin or continue the run in a folder; another run's folder is refused."""
    if paths.run_json.exists():
        found = read_json(paths.run_json)
        if "frame" not in found.get("base", {}):
            identity["base"].pop("frame", None)  # begun before it was part of an identity
        # A key that only the other run has counts too: it chose what this one leaves alone.
        for key, value in {**dict.fromkeys(CHOSEN), **identity}.items():
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
        data: Path | None = None,
    ) -> None:
        self.plan, self.identity, self.paths = plan, identity, paths
        self.ledger, self.tell = ledger, tell
        self.weights: dict[int, str] = {0: identity["base"]["weights"]}
        # Of what a version before this one made, only the weights are known.
        self.frames: dict[int, str | None] = {0: identity["base"].get("frame")}
        self.states: dict[int, list[str]] = {}
        self.done: list[dict[str, Any]] = []
        self.workers: set[Worker] = set()
        self.stopping = False
        self.data = data or (ledger.shared or paths.root) / "data"
        self.pool = ThreadPoolExecutor(max_workers=1)
        self.preparing: dict[str, Future[Path]] = {}
        self.lock = threading.Lock()
        self.evaluator = Evaluator(self)

    def run(self) -> None:
        """All stages, each evaluated, in order."""
        stages = self.plan.stages()
        pool = ThreadPoolExecutor(max_workers=1)
        evaluations: dict[int, Future[None]] = {}
        try:
            for t in stages:
                if self.plan.given and t > 0:
                    given = self.identity["given"][str(t)]
                    self.weights[t], self.frames[t] = given["weights"], given["frame"]
                elif t > 0:
                    self.train(t)
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
            self.evaluator.close()  # what is asked from here on has models of its own
            diagnose(self, stages[-1])
            if self.plan.keep == "none" and self.plan.given is None:
                for t in stages[1:]:
                    self._drop(t)
        finally:
            with self.lock:
                self.stopping = True
            for worker in list(self.workers):
                worker.stop()
            pool.shutdown(cancel_futures=True)
            self.pool.shutdown(cancel_futures=True)

    # ---------------------------------------------------------------------- training

    def train(self, t: int) -> None:
        """Train stage ``t``, unless the ledger says that it is done."""
        suite, name, tasks = self.plan.suite, f"stage-{t}/train", self.plan.tasks_of(t)
        start = time.monotonic()
        before = self._before(t)
        inputs = {
            "tasks": [suite.card(task).model_dump(mode="json") for task in tasks],
            "protocol": suite.protocol.model_dump(mode="json"),
            "index": t,
            "parent": self.weights[before],
            **self.framed(before, "parent_frame"),
            "state": self.states.get(before),
            "earlier": [*self.weights.values()] if self.plan.privileges.earlier_checkpoints else [],
            **{k: self.identity[k] for k in TRAIN_KEYS},
            "seed": stage_seed(self.plan.seed, t),
            **({"launch": self.plan.launch} if self.plan.launch else {}),
        }
        what = f"stage {t} ({self._title(t)}), training"
        record = self.ledger.find(name, inputs)
        if record is None:
            self.tell({"kind": "train", "stage": t, "task": self._title(t), "step": 0, "steps": 0})
            try:
                facts = self._train_now(t, inputs["seed"], what)
            except TrainerFault as fault:
                self._note_failure(t, fault)
                raise
            parts = [self.paths.stage(t) / part for part in PARTS]
            outputs = [self.paths.relative(p) for p in parts]
            record = self.ledger.commit(name, inputs, outputs, facts, time.monotonic() - start)
            self.done.append(record)
        self.weights[t] = record["facts"]["weights"]
        self.frames[t] = record["facts"].get("frame")
        self.states[t] = [
            record["outputs"][self.paths.relative(p)]
            for p in (self.paths.state(t), self.paths.memory(t))
        ]
        self.tell(
            {"kind": "trained", "stage": t, "task": self._title(t), "reused": record.get("reused")}
        )

    def _train_now(self, t: int, seed: int, what: str) -> dict[str, Any]:
        data = [self._prepared(task).result() for task in self.plan.tasks_of(t)]
        if t + 1 in self.plan.stages():
            self._prepared(self.plan.suite.sequence[t])  # meanwhile, for the next stage
        checkpoints = [self.checkpoint(s) for s in self.plan.stages() if s < t]
        order = order_stage(self.plan, self.paths, t, seed, data, checkpoints)
        # Copies, so that a policy changed under the trainer's hands is noticed without a namespace.
        inputs = {path: _seal(path) for path in order.view.read_only}
        limits = Limits(self.plan.budget.seconds, self.plan.memory_mib)
        worker = self.worker(training.train, (order,), t, "train", what, limits, training.isolate)
        facts: dict[str, Any] = self.result(worker, t)
        for path, before in inputs.items():
            if _seal(path) != before:
                if path in [folder.resolve() for folder in data]:
                    shutil.rmtree(path)  # other runs read it too
                raise TrainerFault("inputs-edited", f"{what}: it changed its inputs", where=path)
        finish_stage(self.paths, t)
        usage = {k: round(v, 2) for k, v in vars(worker.monitor.usage).items()}
        return {**facts, **digests(self.paths.checkpoint(t)), **usage}

    def _prepared(self, task: str) -> Future[Path]:
        """The folder of a task's train split, being written beside whatever else goes on."""
        suite, limit = self.plan.suite, self.plan.limit
        folder = prepared(suite.card(task), suite.protocol, limit, self.data)
        if task not in self.preparing:
            order = jobs.PrepareOrder(suite.place, task, limit, folder)

            def carry_out() -> Path:
                if folder.exists():
                    check(folder)
                else:
                    what = f"preparing {task}"
                    worker = Worker(jobs.prepare, (order,), self.paths.root / "prepare.log", what)
                    worker.result()
                return folder

            self.preparing[task] = self.pool.submit(carry_out)
        return self.preparing[task]

    def _note_failure(self, t: int, fault: TrainerFault) -> None:
        """Record a stage's failure beside the run; what was committed stays as it is."""
        row = {"stage": t, "task": self._title(t), "kind": fault.kind, "message": str(fault)}
        row["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        file = self.paths.failures
        write_jsonl(file, [*(read_jsonl(file) if file.exists() else []), row])

    def _title(self, t: int) -> str:
        return "joint" if self.plan.privileges.joint else self.plan.suite.sequence[t - 1]

    def _before(self, t: int) -> int:
        return max(s for s in self.plan.stages() if s < t)

    def checkpoint(self, t: int) -> Path:
        if t == 0:
            return self.plan.base
        return self.plan.given[t] if self.plan.given else self.paths.checkpoint(t)

    def _forget_weights(self, t: int, evaluations: dict[int, Future[None]]) -> None:
        """Drop the weights of the stage before ``t`` once it is evaluated and trained on."""
        before = t - 1
        needed = self.plan.privileges.earlier_checkpoints or self.plan.given is not None
        if self.plan.keep == "all" or needed or before < 1 or before not in evaluations:
            return
        if evaluations[before].done():
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
            measure_others(self, t)
        inputs = {name: self.evaluation_inputs(t, name) for name in names}
        todo = []
        for name in names:
            if self.ledger.find(f"stage-{t}/evaluate/{name}", inputs[name]) is None:
                todo.append(name)
            else:
                self.tell_cell(t, name)
        if todo:
            self.in_halves(t, todo, lambda names: self.evaluator.answer(t, names, inputs))
        if t > 0:
            diverge(self, t)

    def evaluation_inputs(self, t: int, name: str) -> dict[str, Any]:
        return {
            "weights": self.weights[t],
            **self.framed(t),
            "card": self.plan.suite.card(name).model_dump(mode="json"),
            "protocol": self.plan.suite.protocol.model_dump(mode="json"),
            **self.plan.answered_by(),
            **{k: self.identity[k] for k in ("limit", "threads", "versions")},
        }

    def framed(self, t: int, key: str = "frame") -> dict[str, str]:
        """What a key says of the files beside the weights of stage ``t``, where they are known."""
        frame = self.frames.get(t)
        return {key: frame} if frame else {}

    def tell_cell(self, t: int, name: str) -> None:
        rows = read_jsonl(self.paths.predictions(t, name))
        score = 100 * sum(row["score"] for row in rows) / len(rows)
        self.tell({"kind": "cell", "stage": t, "name": name, "accuracy": score, "n": len(rows)})

    # ------------------------------------------------------------------------- common

    def in_halves(self, t: int, names: list[str], work: Callable[[list[str]], None]) -> None:
        """``work`` on all ``names``; in two halves, side by side, where nothing trains."""
        plan = self.plan
        trains = plan.given is None and t != plan.stages()[-1]
        # Two halves would be two engines on the GPUs that are set aside.
        one = plan.endpoint or plan.engine.kept or plan.devices.evaluation is not None
        alone = not plan.overlap or trains or one
        parts = [names] if alone else [part for part in (names[::2], names[1::2]) if part]
        with ThreadPoolExecutor(max_workers=len(parts)) as pool:
            for done in [pool.submit(work, part) for part in parts]:
                done.result()

    def worker(
        self,
        work: Callable[..., Any],
        args: tuple[Any, ...] | None,
        t: int,
        log: str,
        what: str,
        limits: Limits | None = None,
        first: Callable[..., None] | None = None,
    ) -> Worker:
        with self.lock:
            if self.stopping:
                raise CptBenchError(f"{what}: the run is being stopped")
            env = self.plan.devices.env(training=work is training.train)
            worker = Worker(work, args, self.paths.log(t, log), what, limits, first, env)
            self.workers.add(worker)
        return worker

    def result(
        self, worker: Worker, t: int, on_event: Callable[[Event], None] = lambda event: None
    ) -> Any:
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
        diagnosed = [r for r in self.done if "/diagnose/" in r["step"] or r["step"].endswith("/kl")]
        generation = sum(r["facts"]["generation_seconds"] for r in trained)
        gpu = sum(r["facts"]["gpu_seconds"] for r in trained)
        peak = max((r["facts"]["peak_memory_mib"] for r in trained), default=0.0)
        return {
            "steps_done": len(self.done),
            "train_seconds": round(sum(r["seconds"] for r in trained), 2),
            "generation_seconds": round(generation, 2),
            "gpu_seconds": round(gpu, 2),
            "peak_memory_mib": peak,
            "evaluate_seconds": round(sum(r["seconds"] for r in evaluated), 2),
            "diagnose_seconds": round(sum(r["seconds"] for r in diagnosed), 2),
        }


def _seal(path: Path) -> Any:
    """What tells whether something under ``path`` was written to.

    Train splits have thousands of pictures, which nobody links to: the kernel's times of change,
    which no program can set, say as much as their hashes, in a hundredth of the time.
    """
    return times_of_change(path) if (path / "train.jsonl").is_file() else digest(path)
