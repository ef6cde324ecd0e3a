"""The sequence: train on a task, evaluate everything, go on from there.

:func:`run` is the whole of a benchmark run. It decides what to do next; the doing happens in worker
processes (:mod:`cpt_bench.run.jobs`), and what was done is in the ledger. Training stage t+1 needs
only the weights of stage t, so that stage t is evaluated meanwhile where there are two cores.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cpt_bench import environment
from cpt_bench.errors import CptBenchError
from cpt_bench.files import clear_unfinished, write_json
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.schema import read_run
from cpt_bench.results.scoring import Scores, write_scores
from cpt_bench.run.context import Context, Event, Policy, base_policy
from cpt_bench.run.evaluate import Evaluator
from cpt_bench.run.layout import PARTS
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.measurements import diagnose, diverge, measure_others
from cpt_bench.run.plan import CHOSEN, Plan
from cpt_bench.run.splits import TrainSplits
from cpt_bench.run.steps import Record
from cpt_bench.run.train import train
from cpt_bench.run.workers import Workers


def run(
    plan: Plan, folder: Path, shared: Path | None, tell: Callable[[Event], None]
) -> tuple[Scores, dict[str, Any]]:
    """Carry out ``plan`` in ``folder``; what is already done there is not done again.

    Args:
        plan: What to run.
        folder: The run folder; it may hold an earlier, unfinished part of the same run.
        shared: Where the runs in one folder look for finished stages; None to share nothing.
        tell: Receives progress events.

    Returns:
        The scores, and where the time went in seconds.

    Raises:
        CptBenchError: A stage failed. What was committed stays.
    """
    with alone(folder):
        start = time.monotonic()
        _clear(folder, shared)
        with opened(plan, folder, shared, tell) as context:
            open_folder(context.paths, context.identity)
            run_stages(context)
        scores = write_scores(folder)
        costs = costs_of(context.ledger.session)
        costs["wall_seconds"] = round(time.monotonic() - start, 2)
        _close_folder(context.paths, costs)
        return scores, costs


@contextlib.contextmanager
def opened(
    plan: Plan,
    folder: Path,
    shared: Path | None = None,
    tell: Callable[[Event], None] = lambda event: None,
    data: Path | None = None,
    identity: dict[str, Any] | None = None,
) -> Iterator[Context]:
    """What the steps of ``plan`` in ``folder`` need; its workers are stopped at the end.

    Args:
        plan: What to run.
        folder: The run folder.
        shared: As for :func:`run`.
        tell: Receives progress events.
        data: Where prepared splits are stored [in ``shared``, else in ``folder``].
        identity: What the steps' keys take for the run's identity [the plan's].
    """
    paths = RunFolder(folder, plan.suite.sequence)
    stages = [paths.stage(t).name for t in range(len(plan.suite.sequence) + 1)]
    workers = Workers(plan.devices)
    try:
        yield Context(
            plan=plan,
            identity=plan.identity() if identity is None else identity,
            paths=paths,
            ledger=Ledger(folder, shared, stages),
            workers=workers,
            tell=tell,
            data=data or (shared or folder) / "data",
        )
    finally:
        workers.stop()


def run_stages(context: Context) -> None:
    """Train and evaluate all stages, in order; each is evaluated while the next one trains."""
    plan = context.plan
    policies = {0: base_policy(plan, context.identity)}
    splits, evaluator = TrainSplits(context), Evaluator(context)
    evaluations: dict[int, Future[None]] = {}
    pool = ThreadPoolExecutor(max_workers=1)
    context.workers.train = plan.given is None
    try:
        for t in plan.stages():
            if t > 0:
                policies[t] = given(context, t) or train(context, t, policies, splits)
            evaluations[t] = pool.submit(evaluate_stage, context, evaluator, t, policies[t],
                                         policies[0])  # fmt: skip
            if not plan.overlap:
                evaluations[t].result()
            for earlier in evaluations.values():
                if earlier.done():
                    earlier.result()  # an evaluation that failed stops the run now
            _drop_weights(context, t, evaluations)
        context.workers.train = False
        for t, evaluation in evaluations.items():
            evaluation.result()
            _drop_weights(context, t, evaluations)
        evaluator.close()  # what is asked from here on has models of its own
        last = plan.stages()[-1]
        diagnose(context, last, policies[last])
        if plan.keep == "none" and plan.given is None:
            for t in plan.stages()[1:]:
                _drop(context, t)
    finally:
        context.workers.stop()
        pool.shutdown(cancel_futures=True)
        splits.close()


def train_stages(context: Context, stages: Iterable[int]) -> dict[int, Policy]:
    """Train ``stages`` in order without evaluating; stage to checkpoint, the base's included."""
    policies = {0: base_policy(context.plan, context.identity)}
    splits = TrainSplits(context)
    try:
        for t in stages:
            policies[t] = train(context, t, policies, splits)
    finally:
        splits.close()
    return policies


def given(context: Context, t: int) -> Policy | None:
    """The checkpoint of stage ``t`` where all were made elsewhere; None where this run trains."""
    if not context.plan.given:
        return None
    digests = context.identity["given"][str(t)]
    return Policy(context.plan.given[t], digests["weights"], digests["frame"])


def evaluate_stage(
    context: Context, evaluator: Evaluator, t: int, policy: Policy, base: Policy
) -> None:
    """Everything that is measured after stage ``t``, but what needs all other stages first."""
    if context.plan.suite.general_after(t):
        measure_others(context, t, policy)
    evaluator.evaluate(t, policy)
    if t > 0:
        diverge(context, t, policy, base)


# ------------------------------------------------------------------------------------ weights


def _drop_weights(context: Context, t: int, evaluations: Mapping[int, Future[None]]) -> None:
    """Delete the weights of the stage before ``t`` once it is evaluated and trained on."""
    plan, before = context.plan, t - 1
    needed = plan.privileges.earlier_checkpoints or plan.given is not None
    if plan.keep == "all" or needed or before < 1 or before not in evaluations:
        return
    if evaluations[before].done():
        _drop(context, before)


def _drop(context: Context, t: int) -> None:
    checkpoint = context.paths.checkpoint(t)
    if checkpoint.exists():
        context.ledger.drop(f"stage-{t}/train", context.paths.relative(checkpoint))


# ------------------------------------------------------------------------------- the run folder


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the run folder: two of the same command would write over each other's files.

    Raises:
        CptBenchError: Another process has locked it, or ``folder`` cannot be a directory.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CptBenchError("is not a directory", where=folder, todo="Give another --out") from None
    with (folder / ".lock").open("w") as stream:  # unlocked when the process ends, however it does
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


def _clear(folder: Path, shared: Path | None) -> None:
    """Remove what a killed process left half-written here, and in what runs share.

    What a trainer writes is its own and may have any name: it is not looked into.
    """
    for place in (folder, *([shared] if shared else [])):
        clear_unfinished(place, leave=(*PARTS, "work"))
    for borrowed in (folder / "ledger").glob("." + 64 * "[0-9a-f]"):
        shutil.rmtree(borrowed, ignore_errors=True)  # in a folder that this process has locked


def open_folder(paths: RunFolder, identity: dict[str, Any]) -> None:
    """Begin or continue the run in a folder; another run's folder is refused."""
    if paths.run_json.exists():
        found = read_run(paths.root)
        if "frame" not in (found.get("base") or {}):
            identity["base"].pop("frame", None)  # begun before it was part of an identity
        # What the base is called, and where it was found, may have changed since; it has not.
        same = {**identity, "base": _unnamed(identity["base"])}
        found = {**found, "base": _unnamed(found.get("base") or {})}
        # A key that only the other run has counts too: it chose what this one leaves alone.
        for key, value in {**dict.fromkeys(CHOSEN), **same}.items():
            if found.get(key) != value:
                raise CptBenchError(
                    f"holds another run: its {key} is {found.get(key)!r}, not {value!r}"[:400],
                    where=paths.root,
                    todo="Give another --out, or delete the folder",
                )
        return
    record = {"format": 1, **identity, "hardware": environment.hardware()}
    write_json(paths.run_json, {**record, "git": environment.git_state(), "sessions": []})


def _unnamed(base: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in base.items() if key not in ("path", "revision")}


def _close_folder(paths: RunFolder, costs: dict[str, Any]) -> None:
    """Record what this session of the run cost; a session that found all done records nothing."""
    record = read_run(paths.root)
    if costs["steps_done"]:
        write_json(paths.run_json, {**record, "sessions": [*record["sessions"], costs]})


def costs_of(records: Sequence[Record]) -> dict[str, Any]:
    """Seconds of the steps in ``records`` by what they were spent on, and the most memory."""
    trained = [r for r in records if r["step"].endswith("/train")]
    evaluated = [r for r in records if "/evaluate/" in r["step"]]
    diagnosed = [r for r in records if "/diagnose/" in r["step"] or r["step"].endswith("/kl")]
    generation = sum(r["facts"]["generation_seconds"] for r in trained)
    gpu = sum(r["facts"]["gpu_seconds"] for r in trained)
    peak = max((r["facts"]["peak_memory_mib"] for r in trained), default=0.0)
    return {
        "steps_done": len(records),
        "train_seconds": round(sum(r["seconds"] for r in trained), 2),
        "generation_seconds": round(generation, 2),
        "gpu_seconds": round(gpu, 2),
        "peak_memory_mib": peak,
        "evaluate_seconds": round(sum(r["seconds"] for r in evaluated), 2),
        "diagnose_seconds": round(sum(r["seconds"] for r in diagnosed), 2),
    }
