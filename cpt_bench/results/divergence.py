"""KL to the base model: a run folder's rows, and the numbers made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cpt_bench.errors import CptBenchError
from cpt_bench.files import parse_jsonl, read_bytes
from cpt_bench.metrics import bootstrap_means, interval, passport, rounded
from cpt_bench.results.folder import RunFolder
from cpt_bench.suite import Suite


def read_divergence(paths: RunFolder, suite: Suite) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Stage to benchmark to rows of ``kl.jsonl``, for the stages that have one."""
    out: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for t in range(1, len(suite.sequence) + 1):
        file = paths.divergence(t)
        if file.exists():
            for where, row in parse_jsonl(read_bytes(file), file):
                figures = [row.get(key) for key in ("kl", "entropy", "base_entropy")]
                numbers = all(isinstance(x, int | float) and abs(x) < 1e300 for x in figures)
                if not numbers or not isinstance(row.get("name"), str):
                    raise CptBenchError(
                        "not a KL row: name, kl, entropy, base_entropy", where=where
                    )
                out.setdefault(t, {}).setdefault(row["name"], []).append(row)
    return out


def divergence_passports(
    suite: Suite, rows: Mapping[int, Mapping[str, list[dict[str, Any]]]], draws: int
) -> dict[str, Any]:
    """``KL_new`` and ``KL_general`` after the last stage, and each stage's figures.

    Args:
        suite: The suite.
        rows: Stage to benchmark to rows, of :func:`read_divergence`.
        draws: Resamples for an interval.
    """
    last, out = len(suite.sequence), {}
    for key, title in (
        ("KL_new", "KL(base || policy) on the last task's prompts"),
        ("KL_general", "KL(base || policy) on general prompts"),
    ):
        stages = {}
        for t, found in rows.items():
            names = [suite.sequence[t - 1]] if key == "KL_new" else [*suite.general]
            if names and all(name in found for name in names):
                stages[t] = _divergence([found[name] for name in names], f"{key}:{t}", draws)
        end = stages.get(last)
        out[key] = passport(
            None if end is None else end["kl"],
            title=title,
            formula="mean over prompts of KL(base || policy) a token, along base's greedy reply",
            sign="0 = unchanged; nats a token",
            source="RL's Razor (arXiv 2509.04259); exact over the vocabulary, teacher-forced",
            divisor=None if end is None else end["n"],
            n=None if end is None else end["n"],
            missing=[f"{key} after stage {last} (not measured in this run)"] if end is None else (),
            stages={str(t): figures for t, figures in stages.items()},
        )
        if end is not None:
            out[key]["interval"] = end["interval"]
    return out


def _divergence(groups: list[list[dict[str, Any]]], seed: str, draws: int) -> dict[str, Any]:
    """Means over benchmarks of the means over their prompts."""
    drawn = np.zeros(draws)
    for i, group in enumerate(groups):
        values = np.array([[row["kl"] for row in group]])
        drawn += bootstrap_means(values, draws, f"{seed}:{i}")[:, 0] / len(groups)

    def mean(field: str) -> float:
        return rounded(float(np.mean([np.mean([row[field] for row in g]) for g in groups])))

    return {
        "kl": mean("kl"),
        "interval": interval(drawn, method="bootstrap over prompts")._asdict(),
        "entropy": mean("entropy"),
        "base_entropy": mean("base_entropy"),
        "n": sum(len(group) for group in groups),
    }
