"""The suite that a run was made with: found again, and refused if it has changed since."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import SUITE, builtin, listing
from cpt_bench.results.schema import read_run
from cpt_bench.suite import Suite, open_suite
from cpt_bench.suite.variants import split_spec


def suite_of(folder: Path, needs: Sequence[str] = ()) -> tuple[Suite, dict[str, Any]]:
    """The suite of a run folder, checked to be the version it was run with, and ``run.json``.

    Args:
        folder: The run folder.
        needs: Keys that ``run.json`` must have besides those that every run has.
    """
    run = read_run(folder, needs)
    spec, fingerprint = run["suite"]["spec"], run["suite"]["fingerprint"]
    version = run["versions"].get("cptbench", "")
    suite = _found(spec, run["suite"].get("name", ""), folder).reordered(tuple(run["order"]))
    if suite.fingerprint() != fingerprint:
        raise CptBenchError(
            f"was run with another version of suite {suite.name} (its fingerprint was "
            f"{fingerprint[:12]}…, that of {suite.folder} is {suite.fingerprint()[:12]}…)",
            where=folder,
            todo=_cure(spec, version),
        )
    return suite, run


def _found(spec: str, name: str, run: Path) -> Suite:
    """The suite of a run; where its folder is gone, an installed one of that name and variant."""
    place, tag = split_spec(spec)
    if not Path(place).is_absolute() or (Path(place) / SUITE).is_file():
        return open_suite(spec)
    for row in listing("suites"):
        with contextlib.suppress(CptBenchError):
            suite = open_suite(f"{row.name}@{tag}" if tag else row.name)
            if suite.name == name:
                return suite
    what = f"suite {name} is neither in {place} any more nor installed"
    todo = "Put its folder back, or name the folder that it is in now in CPTBENCH_PLUGINS"
    raise CptBenchError(what, where=run, todo=f"{todo} (the folder above the suite's)")


def _cure(spec: str, version: str) -> str:
    """What to do about a run of another version of its suite."""
    if split_spec(spec)[0] in builtin("suites"):
        return f"Install cptbench {version} to score it"
    return (
        "What its cards and suite.yaml declare has changed since: put that back to score this run, "
        "or run again under the new version"
    )
