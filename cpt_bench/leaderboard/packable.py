"""Checks a finished run before it is packed: complete, not limited, not altered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.leaderboard.entry import portable_origin
from cpt_bench.leaderboard.recompute import differences, expected_cells
from cpt_bench.results.committed import records, refuse_altered
from cpt_bench.results.folder import RunFolder, is_joint
from cpt_bench.results.scoring import Scores, score
from cpt_bench.results.suites import suite_of
from cpt_bench.suite import Suite


class Run(NamedTuple):
    """A finished run that was checked for packing."""

    folder: Path
    suite: Suite
    facts: dict[str, Any]
    paths: RunFolder
    scores: Scores
    ledger: list[dict[str, Any]]

    @property
    def seed(self) -> int:
        return int(self.facts["seed"])

    @property
    def lane(self) -> str:
        return str(self.facts.get("lane", "trainer"))

    @property
    def joint(self) -> bool:
        """Whether all tasks were trained at once."""
        return is_joint(self.facts)


def open_run(folder: Path) -> Run:
    """Open a run folder that is complete, not limited, and unchanged since it was written.

    Raises:
        CptBenchError: It is not; the error names the reason.
    """
    suite, facts = suite_of(folder)

    def refuse(what: str, todo: str = "") -> CptBenchError:
        return CptBenchError(what, where=folder, todo=todo)

    if facts.get("limit") is not None:
        todo = "Run it again without --limit"
        raise refuse(f"was limited to {facts['limit']} samples a split", todo)
    paths = RunFolder(folder, suite.sequence)
    for t, name in expected_cells(suite, suite.sequence, is_joint(facts)):
        if not paths.predictions(t, name).is_file():
            todo = "The same `cptbench run` command finishes it"
            raise refuse(f"is not finished: {name} was not evaluated after stage {t}", todo)
    ledger = records(folder)
    if not ledger and facts.get("lane", "trainer") == "trainer":
        raise refuse("has no ledger: this is not how a run was left")
    refuse_altered(folder, ledger)
    scores = score(folder)
    for file, found in (
        (paths.matrix_json, scores.matrix_json()),
        (paths.metrics_json, scores.metrics),
    ):
        for one in differences(read_json(file), found):
            if one.claimed is None or ".interval" in one.path:
                continue  # new in this version, or drawn again; the entry gets what is computed now
            what = f"{file.name}: {one.path} is {one.claimed}; the predictions give {one.found}"
            raise refuse(what, f"`cptbench score {folder}` writes it again")
    return Run(folder, suite, facts, paths, scores, ledger)


SAME = (
    "suite", "trainer", "origin", "config", "privileges", "budget", "launch", "order", "base",
    "engine",
)  # fmt: skip


def alike(runs: Sequence[Run]) -> None:
    """Check that the seeds of one entry differ in nothing but their seed."""
    if not runs:
        raise CptBenchError("no run was given")
    first = runs[0]
    for run in runs[1:]:
        for key in SAME:
            a, b = _comparable(first.facts, key), _comparable(run.facts, key)
            if a != b:
                what = (
                    f"is another experiment than {first.folder}: its {key} differs ({_gap(a, b)})"
                )
                raise CptBenchError(what, where=run.folder, todo="Pack it as an entry of its own")
        if run.lane != first.lane:
            raise CptBenchError(f"its lane is {run.lane}, not {first.lane}", where=run.folder)
        if run.seed == first.seed or [r.seed for r in runs].count(run.seed) > 1:
            what = f"has the seed {run.seed} like another run given"
            raise CptBenchError(what, where=run.folder, todo="Give one run a seed")


def _comparable(facts: dict[str, Any], key: str) -> Any:
    value = facts.get(key)
    if key == "suite" and isinstance(value, dict):
        return {k: v for k, v in value.items() if k != "spec"}
    if key == "origin" and isinstance(value, dict):
        return portable_origin(value)
    if key == "budget":
        return (value or {}).get("samples")  # none asked for, and runs of before it could be
    return value["weights"] if key == "base" and isinstance(value, dict) else value


def _gap(a: Any, b: Any) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [k for k in {**a, **b} if a.get(k) != b.get(k)]
        return ", ".join(f"{k}: {a.get(k)!r} and {b.get(k)!r}" for k in keys[:3])
    return f"{a!r} and {b!r}"[:120]
