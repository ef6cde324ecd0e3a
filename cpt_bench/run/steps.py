"""Steps: one line of the ledger each, and how they are done.

A step has a name, inputs (all that can change its result) and outputs (what it writes). It is found
in the ledger, borrowed from another run in the same folder, or worked and committed. Several steps
that one process does together, such as the evaluations of a stage, are carried out together; each
is committed as soon as its own outputs are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.run.ledger import Ledger

Record = dict[str, Any]


class Step(NamedTuple):
    """One step of a run.

    Attributes:
        name: Unique within the run: ``stage-2/train``, ``stage-2/evaluate/gqa``.
        inputs: All that can change the result, as JSON.
        outputs: What the step writes: paths relative to the run folder.
    """

    name: str
    inputs: dict[str, Any]
    outputs: tuple[str, ...]


Commit = Callable[[Step, dict[str, Any], float], None]
"""Records a step whose outputs are whole: the step, facts for its record, seconds it took."""

Work = Callable[[Sequence[Step], Commit], None]
"""Does steps and commits each."""


def carry_out(
    ledger: Ledger,
    steps: Sequence[Step],
    work: Work,
    known: Callable[[Step, Record], None] = lambda step, record: None,
) -> list[Record]:
    """Have every step done.

    Args:
        ledger: The run's.
        steps: What must be done.
        work: Does those that are not in the ledger; it is not called when all are.
        known: Called with each step and its record, as soon as it has one.

    Returns:
        The records, in the order of ``steps``.

    Raises:
        CptBenchError: ``work`` failed, or ended without committing a step; the others stay.
    """
    records: dict[str, Record] = {}
    for step in steps:
        if (record := ledger.find(step.name, step.inputs)) is not None:
            records[step.name] = record
            known(step, record)
    todo = [step for step in steps if step.name not in records]

    def commit(step: Step, facts: dict[str, Any], seconds: float) -> None:
        record = ledger.commit(step.name, step.inputs, [*step.outputs], facts, seconds)
        records[step.name] = record
        known(step, record)

    if todo:
        work(todo, commit)
    for step in todo:
        if step.name not in records:
            raise CptBenchError(f"{step.name} ended without writing its result")
    return [records[step.name] for step in steps]
