"""The rules of the divisions, as code; ``leaderboards/RULES.md`` is the same in words.

Rules are versioned: an entry names the version that it was submitted under, and has to meet that
one. An earlier version is only for the entries in :mod:`cpt_bench.leaderboard.before`.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cpt_bench.files import digest
from cpt_bench.leaderboard.before import FIRST_BOARD, NEWEST, RULES_OF
from cpt_bench.leaderboard.entry import Entry, Manifest
from cpt_bench.leaderboard.findings import Report
from cpt_bench.suite import Suite

MIB = 1 << 20


class Rules(NamedTuple):
    """The requirements of a version of the rules.

    Attributes:
        min_seeds: Division to the least number of seeds; the divisions are its keys.
        file_bytes: The largest file of an entry.
        seed_bytes: The largest seed, all files together.
        entry_files: The most files of an entry.
        privileges: Division to the privileges it allows; None for any, declared.
        lanes: Division to the lanes it allows.
    """

    min_seeds: dict[str, int]
    file_bytes: int
    seed_bytes: int
    entry_files: int
    privileges: dict[str, tuple[str, ...] | None]
    lanes: dict[str, tuple[str, ...]]


LATEST: Final = "2"

_ONE = Rules(
    min_seeds={"closed": 3, "open": 1},
    file_bytes=10 * MIB,
    seed_bytes=50 * MIB,
    entry_files=4000,
    # In the closed division a method may store samples of earlier tasks, or its earlier
    # checkpoints, if it declares so. Joint training is a different problem: the upper bound.
    privileges={"closed": ("replay_samples_per_task", "earlier_checkpoints"), "open": None},
    lanes={
        "closed": ("trainer",),
        "open": ("trainer", "checkpoints", "endpoint", "predictions"),
    },
)
# The upper bound is as strict as the closed division: a bound that anybody could raise with data
# or weights of their own would bound nothing.
_TWO = _ONE._replace(
    min_seeds={**_ONE.min_seeds, "joint": 3},
    privileges={**_ONE.privileges, "joint": ("joint",)},
    lanes={**_ONE.lanes, "joint": ("trainer",)},
)

RULES: Final[dict[str, Rules]] = {"0": _ONE, "1": _ONE, "2": _TWO}
"""Version to rules. 0: what format 1 was written under; 1: the first board."""

STRICT: Final = ("closed", "joint")
"""The divisions with the suite's base model, data and order alone."""


def check_rules(
    entry: Entry, folder: Path, manifests: dict[int, Manifest], suite: Suite, report: Report
) -> None:
    """Check an entry against the rules of its division."""
    rules = RULES.get(entry.rules)
    if rules is None:
        report.error("rules-version", "entry.yaml", f"no rules have the version {entry.rules!r}")
        return
    if entry.rules != LATEST and RULES_OF.get(digest(folder / "entry.yaml")) != entry.rules:
        what = (
            f"names the rules {entry.rules!r}, which are for the entries of their time that the "
            f"repository lists; this one is held to {LATEST!r}"
        )
        report.error("rules-version", "entry.yaml", what)
        rules = RULES[LATEST]
    check_date(entry.date, "entry.yaml", report)
    division = entry.division
    if division not in rules.min_seeds:
        what = f"the rules {entry.rules!r} have no division {division!r}"
        report.error("rules-version", "entry.yaml", what)
        return
    least = rules.min_seeds[division]
    if len(manifests) < least:
        what = f"{len(manifests)} seeds; the {division} division asks for at least {least}"
        report.error("too-few-seeds", "entry.yaml", what)
    if entry.lane not in rules.lanes[division]:
        what = f"the lane {entry.lane!r} belongs in the open division"
        report.error("lane", "entry.yaml", what)
    _check_privileges(entry, rules, report)
    if division in STRICT:
        if entry.extra_data:
            what = "training data from elsewhere belongs in the open division"
            report.error("extra-data", "entry.yaml", what)
        wanted = list(range(len(entry.seeds)))
        if sorted(entry.seeds) != wanted:
            what = f"seeds {sorted(entry.seeds)}; runs are not chosen: give {wanted}"
            report.error("seeds-chosen", "entry.yaml", what)
        orders = {m.order for m in manifests.values()}
        if orders and orders != {suite.sequence}:
            what = "another task order than the suite's; that belongs in the open division"
            report.error("order", "entry.yaml", what)
    if entry.paper == "" and entry.code == "" and not entry.notes:
        what = "neither paper, code nor notes say what the method is"
        report.note("undescribed", "entry.yaml", what)


def _check_privileges(entry: Entry, rules: Rules, report: Report) -> None:
    division = entry.division
    allowed = rules.privileges[division]
    for name, value in entry.privileges.items():
        if value and allowed is not None and name not in allowed:
            what = f"the {division} division does not allow the privilege {name!r} ({value!r})"
            report.error("privilege", "entry.yaml", what)
    joint = bool(entry.privileges.get("joint"))
    if joint and division == "open":
        what = "trains on all tasks at once: that is the upper bound, in the division 'joint'"
        report.error("privilege", "entry.yaml", what)
    if not joint and division == "joint":
        what = "is in the division 'joint' without the privilege 'joint'"
        report.error("privilege", "entry.yaml", what)


def check_date(date: str, where: str, report: Report, since: str = FIRST_BOARD) -> None:
    """A day between ``since`` and tomorrow: an older entry wins over its copies.

    Tomorrow, because it may have come already where the entry was packed.
    """
    now = datetime.datetime.now(datetime.UTC).date()
    last = max(now, datetime.date.fromisoformat(NEWEST)) + datetime.timedelta(days=1)
    if date > last.isoformat():
        report.error("date", where, f"is dated {date}, a day that has not come")
    elif date < since:
        report.error("date", where, f"is dated {date}, before {since}")
