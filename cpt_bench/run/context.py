"""What every step of a run needs, and the checkpoints that stages start from and leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.results.folder import RunFolder
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.plan import Plan
from cpt_bench.run.workers import Workers

Event = dict[str, Any]


class Context(NamedTuple):
    """One run in one folder.

    Attributes:
        plan: What to run.
        identity: ``plan.identity()``, which reads all of the base's weights: computed once.
        paths: The run folder.
        ledger: What is done.
        workers: The processes that do the rest.
        tell: Receives progress events.
        data: Where prepared train splits and generated test splits are stored.
    """

    plan: Plan
    identity: dict[str, Any]
    paths: RunFolder
    ledger: Ledger
    workers: Workers
    tell: Callable[[Event], None]
    data: Path

    def tell_of(self, t: int) -> Callable[[Event], None]:
        """Passes on a worker's events as those of stage ``t``."""
        return lambda event: self.tell({"stage": t, **event})


class Policy(NamedTuple):
    """The checkpoint of a stage.

    Attributes:
        folder: Where it is; for an endpoint's base model, the server's address.
        weights: The digest of its weights.
        frame: The digest of all else in it that can change a reply; None where that was not
            recorded.
        carried: Digests of what the trainer hands on to the next stage: its state, its memory.
    """

    folder: Path | str
    weights: str
    frame: str | None = None
    carried: tuple[str, ...] | None = None


def base_policy(plan: Plan, identity: dict[str, Any]) -> Policy:
    """The checkpoint that stage 1 starts from."""
    base = identity["base"]
    return Policy(plan.place if plan.endpoint else plan.base, base["weights"], base.get("frame"))
