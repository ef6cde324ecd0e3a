"""Run folders without a model: a real suite's questions and images, made-up replies.

What is under test stands behind the predictions (grading, metrics, comparing, reporting), and these
read a simulated run as they read any other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cpt_bench.evaluation.predictions import graded
from cpt_bench.files import read_jsonl, write_json, write_jsonl
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.losses import prefixes, to_ask
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, Suite, open_suite

WRONG = "<answer>nothing of the kind</answer>"


@cache
def split(suite: str, name: str) -> list[Sample]:
    return load_split(open_suite(suite).card(name), "test")


def splits(suite: str = "nano") -> dict[str, list[Sample]]:
    """All test splits, made once: what :func:`cpt_bench.results.scoring.score` would make again."""
    found = open_suite(suite)
    return {name: split(suite, name) for name in (*found.sequence, *found.general)}


def write_run(
    folder: Path,
    *,
    suite: str = "nano",
    trainer: str = "rft",
    config: dict[str, Any] | None = None,
    seed: int = 0,
    order: tuple[str, ...] | None = None,
    limit: int | None = 40,
    joint: bool = False,
    learned: float = 0.75,
    decay: float = 0.07,
    formless: float = 0.0,
    diagnosed: bool = True,
    spice: Callable[[str], str] = lambda reply: reply,
) -> Path:
    """A whole run: R falls by ``decay`` a stage from ``learned``; ``formless`` is the share of right
    answers without the form at the end; ``spice`` changes every reply after the base."""
    found = open_suite(suite)
    found = found.reordered(order or found.sequence)
    paths, rng = RunFolder(folder, found.sequence), np.random.default_rng([seed, len(trainer)])
    last = len(found.sequence)
    names = (*found.sequence, *found.general)
    for name in names:
        samples = split(suite, name)[:limit]
        ease = rng.random(len(samples))
        for t in range(last + 1):
            share = _share(found, name, t, learned, decay)
            right = ease + rng.normal(0, 0.1, len(samples)) < share
            rows = [
                _row(found, s, ok, rng.random() < formless and t == last, t, spice)
                for s, ok in zip(samples, right, strict=True)
            ]
            card = found.card(name)
            write_jsonl(paths.predictions(t, name), graded(rows, card, samples, found.protocol))
    for t in range(1, last + 1):
        steps = [_step(k, seed, t) for k in range(1, 13)]
        write_jsonl(paths.train_log(t), steps)
        facts = {"weights": "0" * 64, "generation_seconds": 3.0, "peak_memory_mib": 800.0 + t}
        _record(folder, f"stage-{t}/train", facts, 20.0)
        if diagnosed:
            rows = [
                {"name": n, "id": s.id, "tokens": 4, "kl": 0.02 * t + 0.01 * k % 3, "entropy": 0.4,
                 "base_entropy": 0.5}
                for n in (found.sequence[t - 1], *found.general)
                for k, s in enumerate(split(suite, n)[:8])
            ]  # fmt: skip
            write_jsonl(paths.divergence(t), rows)
    if diagnosed:
        _force(paths, found, names, suite, rng)
    _record(folder, "stage-0/evaluate/all", {}, 5.0)
    write_json(paths.run_json, {
        "format": 1,
        "suite": {"spec": suite, "name": found.name, "version": found.version,
                  "fingerprint": found.fingerprint()},
        "trainer": trainer, "origin": {"spec": trainer}, "config": config or {},
        "privileges": {"joint": joint}, "seed": seed, "order": list(found.sequence),
        "limit": limit, "versions": {"cptbench": "0"}, "hardware": {"cpu": "a cpu", "gpus": []},
        "git": None, "sessions": [{"wall_seconds": 200.0, "steps_done": 3}],
    })  # fmt: skip
    return folder


def _share(suite: Suite, name: str, t: int, learned: float, decay: float) -> float:
    if name in suite.general:
        return 0.85 - 0.02 * t
    since = t - 1 - suite.sequence.index(name)
    return 0.3 if since < 0 else learned - decay * since


def _row(
    suite: Suite, sample: Sample, right: bool, bare: bool, t: int, spice: Callable[[str], str]
) -> dict[str, Any]:
    gold, form = sample.answers[0], suite.protocol.form
    reply = (gold if bare else suite.protocol.target(gold)) if right else WRONG
    if t and right and not bare:
        reply = f"{form.thought[0]} a thought {form.thought[1]}{reply}"
    return {"id": sample.id, "reply": spice(reply) if t else reply, "tokens": 5}


def _step(step: int, seed: int, t: int) -> dict[str, Any]:
    reward = 0.3 + 0.04 * step + 0.01 * seed
    return {
        "step": step, "steps": 12, "loss": 1 / step, "reward": reward, "reward_std": 0.4 - 0.01 * t,
        "frac_reward_zero_std": 0.2, "grad_norm": 1.5, "num_tokens": 1000.0 * step, "entropy": 0.3,
    }  # fmt: skip


def _record(folder: Path, step: str, facts: dict[str, Any], seconds: float) -> None:
    record = {
        "step": step,
        "key": "",
        "inputs": {},
        "outputs": {},
        "facts": facts,
        "seconds": seconds,
    }
    write_json(folder / "ledger" / f"{step.replace('/', '.')}.json", record)


def _force(
    paths: RunFolder, suite: Suite, names: tuple[str, ...], spec: str, rng: np.random.Generator
) -> None:
    """Forced replies for what was lost: the direct one is right half the time."""
    last = len(suite.sequence)
    for name in names:
        task = suite.sequence.index(name) if name in suite.sequence else None
        rows = {t: read_jsonl(paths.predictions(t, name)) for t in range(last + 1)}
        wanted = set(to_ask(rows, task, last))
        samples = [s for s in split(spec, name) if s.id in wanted]
        if not samples:
            continue
        for prefix in prefixes(suite.protocol):
            replies = [
                suite.protocol.target(s.answers[0])
                if prefix == "direct" and rng.random() < 0.5
                else WRONG
                for s in samples
            ]
            asked = [
                {"id": s.id, "reply": r, "tokens": 3} for s, r in zip(samples, replies, strict=True)
            ]
            out = graded(asked, suite.card(name), samples, suite.protocol)
            write_jsonl(paths.forced(last, prefix, name), out)
