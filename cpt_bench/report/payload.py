"""All data of a report, as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cpt_bench.metrics import forgotten_by, quadratic
from cpt_bench.report.grids import name as shown_name
from cpt_bench.report.samples import browser
from cpt_bench.report.text import visible
from cpt_bench.results.load import Run, costs, methods, train_logs
from cpt_bench.results.outcomes import percent

POINTS = 250
"""Maximal number of points of a stage's curve; longer curves are averaged in bins."""

FIGURES = {
    "reward": "reward, mean",
    "reward_std": "reward, standard deviation",
    "frac_reward_zero_std": "share of groups without variance",
    "grad_norm": "update (gradient) norm",
    "loss": "loss",
    "entropy": "entropy, nats a token",
    "completions/mean_length": "reply length, tokens",
    "accuracy": "accuracy of rollouts",
    "format_ok": "form of rollouts",
    "mean_token_accuracy": "token accuracy",
    "kl": "KL to the reference",
    "learning_rate": "learning rate",
}
"""Training figures that are drawn as curves, by their name in ``train.jsonl``."""


def payload(runs: Sequence[Run], comparison: dict[str, Any]) -> dict[str, Any]:
    """The data of a report on runs of one suite and their comparison."""
    found = methods(runs)
    of_run = {run.folder: m for m in found for run in m.runs}
    suite = runs[0].suite
    points = [point for i, run in enumerate(runs) for point in _divergence(run, i)]
    return {
        "suite": {
            "name": suite.name,
            "title": suite.title,
            "version": suite.version,
            "limit": runs[0].record.get("limit"),
        },
        "titles": {n: f"{c.title} ({c.role})" for n, c in suite.cards.items()},
        "comparison": _shown(comparison),
        "figures": FIGURES,
        "runs": [_run(run, shown_name(of_run[run.folder].name)) for run in runs],
        "kl": {"points": points, "fits": fits(points)},
        "browser": browser(runs),
    }


def _shown(comparison: dict[str, Any]) -> dict[str, Any]:
    """The parts of a comparison that the page shows, with invisible characters in names escaped."""
    keys = ("name", "kind", "learning_rate", "seeds", "numbers", "costs", "device", "lane")
    shown = []
    for method in comparison["methods"]:
        mine = {key: method[key] for key in keys}
        shown.append({**mine, "name": shown_name(mine["name"]), "kind": shown_name(mine["kind"])})
    return {"methods": shown, "missing": comparison["missing"]}


def _run(run: Run, method: str) -> dict[str, Any]:
    matrix = run.scores.matrix_json()
    return {
        "name": shown_name(run.folder.name),
        "method": method,
        "seed": run.seed,
        "order": list(run.suite.sequence),
        "matrix": matrix,
        "metrics": run.scores.metrics,
        "missing": run.scores.missing(),
        "costs": costs(run),
        "settings": visible(_settings(run), 6_000),
        "train": {str(t): _curves(rows) for t, rows in train_logs(run).items()},
    }


def _settings(run: Run) -> str:
    import json

    keys = ("trainer", "origin", "config", "privileges", "seed", "versions", "hardware", "git")
    known = {key: run.record.get(key) for key in keys}
    return json.dumps(known, indent=1, ensure_ascii=False)


def _curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Step to figure, averaged in bins if a stage has many steps."""
    out: dict[str, Any] = {"steps": [], "figures": {}}
    if not rows:
        return out
    bins = np.array_split(np.arange(len(rows)), min(len(rows), POINTS))
    out["steps"] = [rows[part[-1]].get("step", int(part[-1]) + 1) for part in bins]
    for key in FIGURES:
        values = [row.get(key) for row in rows]
        if not any(isinstance(v, int | float) for v in values):
            continue
        numbers = np.array([v if isinstance(v, int | float) else np.nan for v in values], float)
        means = [_mean(numbers[part]) for part in bins]
        out["figures"][key] = means
    return out


def _mean(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(f"{known.mean():.4g}") if len(known) else None


def _divergence(run: Run, index: int) -> list[dict[str, Any]]:
    """One point per stage: KL to the base, and forgetting so far, in percentage points."""
    accuracy, out = run.scores.matrix.accuracy, []
    columns = [percent(run.scores.outcomes[name].strict) for name in run.suite.general]
    measured = np.array(columns).reshape(len(columns), len(accuracy)).T
    new = run.scores.metrics["KL_new"]["stages"]
    general = run.scores.metrics["KL_general"]["stages"]
    for t, task in enumerate(run.suite.sequence, 1):
        if str(t) not in new:
            continue
        out.append({
            "run": index,
            "stage": t,
            "task": task,
            "kl_new": new[str(t)]["kl"],
            "kl_general": general.get(str(t), {}).get("kl"),
            "entropy": new[str(t)]["entropy"],
            "base_entropy": new[str(t)]["base_entropy"],
            **forgotten_by(t, accuracy, measured)._asdict(),
        })  # fmt: skip
    return out


def fits(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Least-squares quadratic fits of forgetting on KL, as in RL's Razor, with their R².

    Returns:
        ``x,y`` to ``coefficients`` (constant first), ``r2`` and ``n``; only if there are at least
        five points that are not all equal.
    """
    out: dict[str, Any] = {}
    for x in ("kl_new", "kl_general"):
        for y in ("general", "tasks"):
            known = [(p[x], p[y]) for p in points if p[x] is not None and p[y] is not None]
            if len(known) < 5:
                continue
            xs, ys = np.array(known).T
            if np.ptp(xs) == 0 or np.ptp(ys) == 0:
                continue
            r2, best = quadratic(xs, ys)
            out[f"{x},{y}"] = {
                "coefficients": [float(f"{c:.6g}") for c in best],
                "r2": round(r2, 3),
                "n": len(known),
            }
    return out
