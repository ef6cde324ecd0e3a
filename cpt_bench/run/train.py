"""Training one stage, as a step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cpt_bench.errors import TrainerFault
from cpt_bench.files import digest, read_jsonl, times_of_change, write_jsonl
from cpt_bench.run import keys
from cpt_bench.run.context import Context, Policy
from cpt_bench.run.jobs.accept import AcceptJob, accept
from cpt_bench.run.layout import PARTS, collect, lay_out
from cpt_bench.run.ledger import step_key
from cpt_bench.run.plan import digests, stage_seed
from cpt_bench.run.splits import TrainSplits
from cpt_bench.run.steps import Commit, Record, Step, carry_out
from cpt_bench.stage import training
from cpt_bench.stage.prompts import keep_prompt_files
from cpt_bench.worker.monitor import Limits


def train(context: Context, t: int, policies: Mapping[int, Policy], splits: TrainSplits) -> Policy:
    """Train stage ``t``, unless the ledger has it, and return the checkpoint it left.

    Args:
        context: The run.
        t: The stage.
        policies: Stage to checkpoint, for all stages before ``t``.
        splits: The run's train splits.

    Raises:
        TrainerFault: The trainer failed or broke the contract; ``failures.jsonl`` records it.
    """
    paths, title = context.paths, title_of(context, t)
    parts = [paths.stage(t) / part for part in PARTS]
    step = Step(
        f"stage-{t}/train",
        keys.training(context.plan, context.identity, t, policies),
        tuple(paths.relative(part) for part in parts),
    )

    def work(steps: Sequence[Step], commit: Commit) -> None:
        start = time.monotonic()
        context.tell({"kind": "train", "stage": t, "task": title, "step": 0, "steps": 0})
        try:
            facts = _train_now(context, t, policies, splits, step_key(step.name, step.inputs))
        except TrainerFault as fault:
            _record_failure(context, t, fault)
            raise
        commit(step, facts, time.monotonic() - start)

    (record,) = carry_out(context.ledger, [step], work)
    reused = record.get("reused")
    context.tell({"kind": "trained", "stage": t, "task": title, "reused": reused})
    return left(context, t, record)


def left(context: Context, t: int, record: Record) -> Policy:
    """The checkpoint that a recorded training step left."""
    paths, facts = context.paths, record["facts"]
    carried = [record["outputs"][paths.relative(p)] for p in (paths.state(t), paths.memory(t))]
    return Policy(paths.checkpoint(t), facts["weights"], facts.get("frame"), tuple(carried))


def title_of(context: Context, t: int) -> str:
    """What stage ``t`` is called: its task, or ``joint``."""
    plan = context.plan
    return "joint" if plan.privileges.joint else plan.suite.sequence[t - 1]


def _train_now(
    context: Context, t: int, policies: Mapping[int, Policy], splits: TrainSplits, key: str
) -> dict[str, Any]:
    """Run the trainer in a worker, and collect what it wrote; returns facts for the record."""
    plan, paths = context.plan, context.paths
    data = [splits.folder(task) for task in plan.tasks_of(t)]
    if t + 1 in plan.stages():
        splits.ask(plan.suite.sequence[t])  # meanwhile, for the next stage
    checkpoints = [Path(policy.folder) for policy in policies.values()]
    read = splits.read_by_generators()
    job = lay_out(plan, paths, t, stage_seed(plan.seed, t), data, checkpoints, read, key)
    # Compared afterwards: without a namespace, the trainer could have changed its inputs.
    # Graders are code of the suite's author, who may be at work on it, and Python caches it.
    inputs = [path for path in job.view.read_only if path.suffix not in (".py", ".pyc")]
    seals = {path: _seal(path) for path in inputs}
    what = f"stage {t} ({title_of(context, t)}), training"
    worker = context.workers.start(
        training.train,
        job,
        paths.log(t, "train"),
        what,
        training=True,
        limits=Limits(plan.budget.seconds, plan.memory_mib),
        first=training.isolate,
    )
    facts: dict[str, Any] = context.workers.result(worker, context.tell_of(t))
    for path, seal in seals.items():
        if _seal(path) != seal:
            if path in [folder.resolve() for folder in data]:
                shutil.rmtree(path)  # other runs read it too
            raise TrainerFault("inputs-edited", f"{what}: it changed its inputs", where=path)
    replaced = _accept(context, t, checkpoints[-1], data[0])
    collect(paths, t)
    usage = {k: round(v, 2) for k, v in vars(worker.monitor.usage).items()}
    extra = {"prompt_files_replaced": replaced} if replaced else {}
    return {**facts, **extra, **digests(paths.checkpoint(t)), **usage}


def _accept(context: Context, t: int, start: Path, data: Path) -> list[str]:
    """Make a trained checkpoint read prompts as its start does, and have it answer one of ``data``.

    Returns:
        The prompt files that the trainer had changed.

    Raises:
        TrainerFault: It does not open, or does not answer.
    """
    plan, written = context.plan, context.paths.work(t) / "checkpoint"
    what = f"stage {t} ({title_of(context, t)})"
    replaced = keep_prompt_files(start, written, plan.method.name)
    if replaced:
        line = (
            f"{what}: the protocol fixes how prompts and pictures are read; "
            f"from the start checkpoint: {', '.join(replaced)}"
        )
        context.tell({"kind": "warning", "line": line})
    worker = context.workers.start(
        accept,
        AcceptJob(written, plan.method.name, data, plan.threads),
        context.paths.log(t, "accept"),
        f"{what}, first answer",
    )
    context.workers.result(worker, context.tell_of(t))
    return replaced


def _record_failure(context: Context, t: int, fault: TrainerFault) -> None:
    """Add a stage's failure to ``failures.jsonl``; what was committed stays as it is."""
    row = {"stage": t, "task": title_of(context, t), "kind": fault.kind, "message": str(fault)}
    row["at"] = datetime.now(UTC).isoformat(timespec="seconds")
    file = context.paths.failures
    write_jsonl(file, [*(read_jsonl(file) if file.exists() else []), row])


def _seal(path: Path) -> Any:
    """A value that changes when something under ``path`` is written to.

    Train splits have thousands of pictures, which nobody links to: the kernel's times of change,
    which no program can set, serve as well as their hashes, in a hundredth of the time.
    """
    return times_of_change(path) if (path / "train.jsonl").is_file() else digest(path)
