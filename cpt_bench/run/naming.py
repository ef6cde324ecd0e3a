"""The default name of a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpt_bench.files import digest_json
from cpt_bench.hub.names import parse
from cpt_bench.run.plan import Plan
from cpt_bench.suite import open_suite

LONGEST = 120
"""Maximal length of a name without its tail: file systems allow some 255 characters."""


def run_name(plan: Plan, settings: list[str]) -> str:
    """``nano-rft-seed0``, with a tail for everything that is not the default."""
    special: dict[str, Any] = {"settings": sorted(settings)} if settings else {}
    if plan.limit is not None:
        special["limit"] = plan.limit
    if plan.budget.samples is not None:
        special["budget"] = plan.budget.samples
    if plan.suite.sequence != open_suite(plan.suite_spec).sequence:
        special["order"] = plan.suite.sequence
    given = plan.start.given if plan.start else None
    if given is not None:
        special["base"] = given
    if plan.launch:
        special["launch"] = plan.launch
    if plan.engine.identity():
        special["engine"] = plan.engine.identity()
    if plan.method.origin["spec"] != plan.method.name:  # not built in: the name may be ambiguous
        declared = plan.privileges.model_dump(exclude_defaults=True)
        special["trainer"] = [plan.method.origin["spec"], declared]
    hub = parse(given) if given is not None and not Path(given).is_dir() else None
    model = [hub.id.rpartition("/")[2]] if hub else []
    name = "-".join([plan.suite.label, *model, plan.method.name.lower(), f"seed{plan.seed}"])
    changed = [s.replace("=", "_") for s in settings]
    readable = "-".join([name, *changed])
    if len(readable) > LONGEST:
        special["name"] = readable
    tail = f"-{digest_json(special)[:6]}" if special.keys() - {"settings"} else ""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in readable)[:LONGEST] + tail
