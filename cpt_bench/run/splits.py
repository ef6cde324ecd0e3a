"""Train splits, written in the background while something else goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cpt_bench.files import read_json
from cpt_bench.run.context import Context
from cpt_bench.run.jobs.prepare import LookJob, PrepareJob, listed, look, prepare
from cpt_bench.stage.split import require_unedited, split_folder


class TrainSplits:
    """The prepared train splits of one run's tasks, each written once and shared between runs.

    Args:
        context: The run.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._asked: dict[str, Future[Path]] = {}

    def folder(self, task: str) -> Path:
        """The folder of a task's train split, once it is whole.

        Raises:
            CptBenchError: It cannot be written, or somebody edited it.
        """
        return self.ask(task).result()

    def ask(self, task: str) -> Future[Path]:
        """Have a task's train split written by the time it is needed."""
        if task not in self._asked:
            self._asked[task] = self._pool.submit(self._written, task)
        return self._asked[task]

    def read_by_generators(self) -> list[Path]:
        """The files that the suite's generators read, test questions among them.

        Raises:
            CptBenchError: A generator fails.
        """
        plan, data = self.context.plan, self.context.data
        lists = [file for _, file in listed(plan.suite, data)]
        if not all(file.is_file() for file in lists):
            log = self.context.paths.root / "prepare.log"
            workers, job = self.context.workers, LookJob(plan.suite.place, data)
            worker = workers.start(look, job, log, "looking what generators read", training=True)
            workers.result(worker, lambda event: None)
        return [Path(name) for file in lists for name in read_json(file)]

    def _written(self, task: str) -> Path:
        plan = self.context.plan
        folder = split_folder(
            plan.suite.card(task), plan.suite.protocol, plan.limit, self.context.data
        )
        if folder.exists():
            require_unedited(folder)
            return folder
        job = PrepareJob(plan.suite.place, task, plan.limit, folder)
        log = self.context.paths.root / "prepare.log"
        workers = self.context.workers
        worker = workers.start(prepare, job, log, f"preparing {task}", training=True)
        workers.result(worker, lambda event: None)
        return folder

    def close(self) -> None:
        """Forget what nobody waits for any more."""
        self._pool.shutdown(cancel_futures=True)
