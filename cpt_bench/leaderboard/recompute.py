"""Computes the numbers of one seed from its predictions, and compares them with the claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.leaderboard.entry import Manifest
from cpt_bench.leaderboard.gold import Gold
from cpt_bench.leaderboard.tables import Table
from cpt_bench.results.outcomes import Outcomes
from cpt_bench.results.scoring import Scores, compute
from cpt_bench.suite import Suite

TOLERANCE = 1e-9


class Seed(NamedTuple):
    """The recomputed numbers of one seed.

    Attributes:
        manifest: Of the seed.
        tables: (stage, benchmark) to its graded predictions.
        scores: Matrix and metrics; None when a cell is missing or gold is not here.
        records: The ledger's, by step; none where there is no ledger.
    """

    manifest: Manifest
    tables: dict[tuple[int, str], Table]
    scores: Scores | None
    records: Mapping[str, dict[str, Any]] = MappingProxyType({})


def stage_name(order: tuple[str, ...], stage: int) -> str:
    """The folder of a stage: ``0-base``, ``1-science`` and so on."""
    return f"{stage}-{'base' if stage == 0 else order[stage - 1]}"


def stages_of(order: tuple[str, ...], joint: bool = False) -> list[int]:
    """The stages that are evaluated: all, or of joint training the base model and the end.

    Joint training is one stage. It is the last one, so that its row is that of the end.
    """
    return [0, len(order)] if joint else [*range(len(order) + 1)]


def expected_cells(
    suite: Suite, order: tuple[str, ...], joint: bool = False
) -> Iterator[tuple[int, str]]:
    """Every (stage, benchmark) that the protocol evaluates."""
    ordered = suite.model_copy(update={"sequence": order})
    for stage in stages_of(order, joint):
        for name in ordered.benchmarks_after(stage):
            yield stage, name


def score_seed(
    suite: Suite,
    order: tuple[str, ...],
    tables: dict[tuple[int, str], Table],
    gold: dict[str, Gold],
    forced: dict[str, dict[str, npt.NDArray[np.float64]]] | None = None,
    divergence: dict[int, dict[str, list[dict[str, Any]]]] | None = None,
    *,
    joint: bool = False,
) -> Scores | None:
    """Matrix and metrics; None when a cell is missing.

    The same outcomes as :func:`cpt_bench.results.scoring.score` makes from a run folder.
    """
    if any(cell not in tables for cell in expected_cells(suite, order, joint)):
        return None
    outcomes = {}
    for name in (*order, *suite.general):
        stacked = np.full((5, len(order) + 1, len(gold[name].samples)), np.nan)
        for stage in range(len(order) + 1):
            if (stage, name) in tables:
                stacked[:, stage] = tables[stage, name].outcomes
        strict, lenient, form, tokens, reasoned = stacked
        extra = (forced or {}).get(name)
        outcomes[name] = Outcomes(strict, lenient, form, tokens, reasoned, extra)
    scores = compute(suite.reordered(order), outcomes, divergence)
    return scores._replace(rows=tuple(stages_of(order, joint))) if joint else scores


# --------------------------------------------------------------------- claimed and recomputed


class Difference(NamedTuple):
    """One place where the claim differs from what was computed."""

    path: str
    claimed: Any
    found: Any


def differences(claimed: Any, found: Any, path: str = "") -> Iterator[Difference]:
    """Where claimed numbers, names and gaps differ from those of ``found``; wording may differ.

    A key that is claimed but cannot be recomputed does not count as a difference.
    """
    if isinstance(found, dict):
        if not isinstance(claimed, dict):
            yield Difference(path, claimed, found)
            return
        for key, value in found.items():
            if isinstance(value, str) and path:
                continue  # the wording of a passport's formula or source may change
            if key not in claimed:
                yield Difference(f"{path}.{key}".lstrip("."), None, value)
            else:
                yield from differences(claimed[key], value, f"{path}.{key}".lstrip("."))
    elif isinstance(found, list):
        if not isinstance(claimed, list) or len(claimed) != len(found):
            yield Difference(path, claimed, found)
            return
        for i, (a, b) in enumerate(zip(claimed, found, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif isinstance(found, int | float) and not isinstance(found, bool):
        number = isinstance(claimed, int | float) and not isinstance(claimed, bool)
        if not number or abs(claimed - found) > TOLERANCE * max(1.0, abs(found)):
            yield Difference(path, claimed, found)
    elif claimed != found:
        yield Difference(path, claimed, found)
