"""Adds measurements that an older run lacks, from its checkpoints: KL to the base, and diagnosis.

A run that was finished before these were part of a run, or by a version whose settings had other
names, cannot be resumed by ``cptbench run``. Its weights are first checked against the digests in
its ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpt_bench import environment
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.models.start import start_of
from cpt_bench.results.scoring import write_scores
from cpt_bench.results.suites import suite_of
from cpt_bench.run.context import Policy, base_policy
from cpt_bench.run.measurements import diagnose, diverge
from cpt_bench.run.request import Request, plan_of
from cpt_bench.run.sequencer import opened
from cpt_bench.stage.method import Method
from cpt_bench.trainer import Privileges

TRAINED = ("trainer", "config", "base", "seed", "threads")
"""Keys of a run that was trained here."""


def measure(
    folder: Path,
    base: Path | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda event: None,
) -> int:
    """Make the missing measurements for which a finished run has checkpoints; score it again.

    Args:
        folder: The run folder.
        base: The checkpoint it started from, if not the suite's.
        tell: Receives progress events.

    Returns:
        How many steps were done; 0 if nothing is missing or no checkpoint is left.

    Raises:
        CptBenchError: A checkpoint is not the one that was evaluated; or the run is not finished.
    """
    suite, run = suite_of(folder, TRAINED)
    if not (folder / f"ledger/stage-{len(suite.sequence)}.train.json").is_file():
        todo = "The same `cptbench run` command finishes it"
        raise CptBenchError("is not finished", where=folder, todo=todo)
    method = Method(
        run["trainer"],
        run.get("origin") or {},
        run["config"],
        Privileges.model_validate(run.get("privileges") or {}),
    )
    request = Request(
        suite=run["suite"]["spec"],
        order=suite.sequence,
        seed=run["seed"],
        limit=run["limit"],
        threads=run["threads"],
        base=str(start_of(suite, None if base is None else str(base)).folder),
        overlap=False,
        gpus=(),
    )
    plan = plan_of(request, method)
    # The measurements are made by this installation, whichever version trained the run.
    identity = {**run, "versions": environment.versions()}
    if weights_digest(plan.base) != run["base"]["weights"]:
        raise CptBenchError("started from another base model", where=folder, todo="Give its --base")
    with opened(plan, folder, tell=tell, identity=identity) as context:
        base_model = base_policy(plan, identity)
        last = len(suite.sequence)
        for t in plan.stages()[1:]:
            weights = context.ledger.record(f"stage-{t}/train")["facts"]["weights"]
            checkpoint = context.paths.checkpoint(t)
            if not checkpoint.exists():
                continue
            if weights_digest(checkpoint) != weights:
                raise CptBenchError("is not the checkpoint that was evaluated", where=checkpoint)
            policy = Policy(checkpoint, weights)
            if not _done(folder, t, "kl"):
                diverge(context, t, policy, base_model)
            if t == last and not _done(folder, last, "diagnose"):
                diagnose(context, last, policy)
    if context.ledger.session:
        write_scores(folder)
    return len(context.ledger.session)


def _done(folder: Path, stage: int, what: str) -> bool:
    found = folder.glob(f"ledger/stage-{stage}.{what}*.json")
    return any(read_json(file)["outputs"] for file in found)
