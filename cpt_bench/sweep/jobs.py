"""Turns the runs of a sweep file into jobs: a plan, a folder, a command, and shareable stages.

A job's *chain* has one key per stage: the digest of everything that decides the weights after it.
Two jobs with a common key would train the same stage; see :mod:`cpt_bench.sweep.loop`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest_json
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.schema import read_run
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.plan import CHOSEN, Plan
from cpt_bench.run.request import Request, folder_of, plan_of
from cpt_bench.settings import assignments
from cpt_bench.stage.command import PREFIX
from cpt_bench.stage.method import Asked, describe
from cpt_bench.suite import Suite, open_suite
from cpt_bench.suite.variants import compose
from cpt_bench.sweep.spec import Cell, Sweep, cells


class Job(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: Its folder's name, the same as with ``cptbench run``.
        folder: The run folder, absolute.
        plan: The run's plan.
        arguments: The arguments of ``cptbench run``.
        chain: Stage (as in ``plan.stages()``) to the key of its weights, in order.
    """

    name: str
    folder: Path
    plan: Plan
    arguments: tuple[str, ...]
    chain: tuple[tuple[int, str], ...]

    def keys(self) -> dict[str, int]:
        """Key to stage."""
        return {key: stage for stage, key in self.chain}


def jobs_of(sweep: Sweep, out: Path, file: Path) -> list[Job]:
    """Every run of a sweep once, checked as ``cptbench run`` checks its options.

    Args:
        sweep: The file's content.
        out: The folder of the run folders.
        file: The sweep file, for errors.

    Raises:
        CptBenchError: A trainer, recipe, setting or order does not exist, or two runs would have
            the same folder.
    """
    spec = compose(sweep.suite, sweep.protocol, sweep.tier)
    suite = open_suite(spec)
    found: dict[str, Job] = {}
    for cell in cells(sweep):
        try:
            job = _job(sweep, spec, suite, cell, out.absolute())
        except CptBenchError as error:
            raise CptBenchError(str(error), where=f"{file}: {cell.where}") from None
        other = found.setdefault(job.name, job)
        if other is not job and other.plan.choices() != job.plan.choices():
            raise CptBenchError(
                f"two different runs would both be called {job.name}",
                where=f"{file}: {cell.where}",
                todo="Put them into separate sweeps",
            )
    return [*found.values()]


def _job(sweep: Sweep, spec: str, suite: Suite, cell: Cell, out: Path) -> Job:
    if cell.privileges and not cell.trainer.startswith(PREFIX):
        raise CptBenchError("privileges are for cmd: trainers; a class declares its own")
    # Leave out a setting that equals the recipe's: it would be the same run under another name.
    asked = Asked(cell.trainer, suite.recipe_folder, (), cell.privileges, cell.recipe, suite.folder)
    needed = _needed(asked, cell.settings)
    request = Request(
        trainer=cell.trainer,
        suite=spec,
        order=cell.order,
        seed=cell.seed,
        settings=tuple(needed),
        recipe=cell.recipe,
        privileges=cell.privileges,
        base=sweep.base,
        limit=sweep.limit,
        budget=sweep.budget,
        stage_timeout=sweep.stage_timeout,
        memory_limit=sweep.memory_limit,
        general=tuple(sweep.general),
        engine=sweep.engine,
        engine_settings=tuple(assignments(sweep.engine_set)),
        threads=sweep.threads,
        overlap=False,
        keep=sweep.keep,
        save_every=sweep.save_every,
        gpus=(),  # the run will see its machine's GPUs
    )
    plan = plan_of(request, _described(asked._replace(settings=tuple(needed))))
    folder = out / folder_of(request, plan).name
    arguments = _arguments(request, plan.suite, folder, suite)
    return Job(folder.name, folder, plan, arguments, tuple(chain(plan)))


_described = lru_cache(maxsize=None)(describe)
"""The methods that this process has described, so that runs with the same method share one."""


def _needed(asked: Asked, settings: Iterable[str]) -> list[str]:
    """The settings that change something; if a key is repeated, the last value counts."""
    last = {setting.partition("=")[0]: setting for setting in settings}
    needed: list[str] = []
    try:
        before = _described(asked)
    except CptBenchError:
        return [*last.values()]  # the recipe alone is incomplete: no setting repeats it
    for setting in last.values():
        after = _described(asked._replace(settings=(*needed, setting)))
        if after != before:
            needed.append(setting)
            before = after
    return needed


def _arguments(request: Request, ordered: Suite, folder: Path, suite: Suite) -> tuple[str, ...]:
    """The options of ``cptbench run`` that stand for the request."""
    out = ["run", "--trainer", request.trainer, "--suite", request.suite]
    out += ["--seed", str(request.seed)]
    for setting in request.settings:
        out += ["--set", setting]
    if ordered.sequence != suite.sequence:
        out += ["--order", ",".join(ordered.sequence)]
    for name in request.general:
        out += ["--general", name]
    for privilege in request.privileges:
        out += ["--privilege", privilege]
    if request.engine != Request().engine:
        out += ["--engine", request.engine]
    for setting in request.engine_settings:
        out += ["--engine-set", setting]
    options = {
        "--recipe": request.recipe,
        "--base": request.base,
        "--limit": request.limit,
        "--budget": request.budget,
        "--stage-timeout": request.stage_timeout,
        "--memory-limit": request.memory_limit,
        "--save-every": request.save_every,
    }
    for option, value in options.items():
        if value is not None:
            out += [option, str(value)]
    return (*out, "--threads", str(request.threads), "--out", str(folder))


def chain(plan: Plan) -> Iterable[tuple[int, str]]:
    """Stage and the key of its weights, from the base on; the ledger's keys without the digests.

    Two runs on one machine with equal keys here have equal keys in their ledgers: the parts left
    out (versions, the base's digest, parents) are the same for both, or follow from the rest.
    """
    shared = {
        "suite": plan.suite_spec,
        "fingerprint": plan.suite.fingerprint(),
        "base": str(plan.base),
        "limit": plan.limit,
        "threads": plan.threads,
    }
    key = digest_json(shared)
    for stage in plan.stages():
        if stage > 0:
            key = digest_json({
                "parent": key,
                "stage": stage,
                "tasks": list(plan.tasks_of(stage)),
                "trainer": plan.method.origin,
                "config": plan.method.config,
                "privileges": plan.privileges.model_dump(),
                "budget": plan.budget.model_dump(include={"samples"}),
                "seed": plan.seed,
            })  # fmt: skip
        yield stage, key


# ------------------------------------------------------------------------------ what is on disk


def committed(job: Job, stage: int) -> bool:
    """Whether all steps of a stage are in the run's ledger: training, evaluation, KL."""
    ledger, suite = job.folder / "ledger", job.plan.suite
    steps = [f"stage-{stage}.evaluate.{name}" for name in suite.benchmarks_after(stage)]
    if stage > 0:
        steps += [f"stage-{stage}.train", f"stage-{stage}.kl"]
    return all((ledger / f"{step}.json").is_file() for step in steps)


def stages_done(job: Job) -> int:
    """How many stages are trained, to show progress."""
    return sum(
        (job.folder / "ledger" / f"stage-{stage}.train.json").is_file()
        for stage, _ in job.chain
        if stage > 0
    )


def finished(job: Job) -> bool:
    """Whether the folder has exactly this run, finished; ``cptbench run`` handles all other cases.

    Checked without reading the base's weights: there must be a file of results and a completed
    session with the same settings.
    """
    run_json = job.folder / "run.json"
    if not run_json.is_file() or not (job.folder / "metrics.json").is_file():
        return False
    found = read_run(job.folder)
    asked = {**dict.fromkeys(CHOSEN), **job.plan.choices()}
    same = all(found.get(key) == value for key, value in asked.items())
    return same and bool(found.get("sessions"))


def lends(job: Job, others: Iterable[Job]) -> bool:
    """Whether another job shares a trained stage with this one, and may copy its weights."""
    mine = {key for stage, key in job.chain if stage > 0}
    return any(mine & other.keys().keys() for other in others if other.name != job.name)


def thin(job: Job, keep: str) -> None:
    """Drop the checkpoints of a finished run that no other job needs, as ``--keep`` would."""
    paths, ledger = RunFolder(job.folder, job.plan.suite.sequence), Ledger(job.folder)
    stages = [stage for stage, _ in job.chain if stage > 0]
    needed = job.plan.privileges.earlier_checkpoints
    for stage in stages if keep == "none" else stages[:-1] if keep == "last" and not needed else []:
        checkpoint = paths.checkpoint(stage)
        if checkpoint.exists():
            ledger.drop(f"stage-{stage}/train", paths.relative(checkpoint))


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
