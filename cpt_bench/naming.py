"""What a run's folder is called when nobody gave it a name."""

from __future__ import annotations

from typing import Any

from cpt_bench.files import digest_json
from cpt_bench.run_plan import Plan
from cpt_bench.suite import open_suite


def run_name(plan: Plan, settings: list[str]) -> str:
    """``nano-rft-seed0``, with a tail for whatever is not the default."""
    special: dict[str, Any] = {"settings": sorted(settings)} if settings else {}
    if plan.limit is not None:
        special["limit"] = plan.limit
    if plan.budget.samples is not None:
        special["budget"] = plan.budget.samples
    if plan.suite.sequence != open_suite(plan.suite_spec).sequence:
        special["order"] = plan.suite.sequence
    if plan.base != plan.suite.base_path():
        special["base"] = str(plan.base)
    if plan.launch:
        special["launch"] = plan.launch
    if plan.engine.identity():
        special["engine"] = plan.engine.identity()
    name = f"{plan.suite.label}-{plan.method.name.lower()}-seed{plan.seed}"
    changed = [s.replace("=", "_") for s in settings]
    readable = "-".join([name, *changed])
    tail = f"-{digest_json(special)[:6]}" if special.keys() - {"settings"} else ""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in readable)[:120] + tail
