"""Entries to test with: a small suite, runs of it written without any model, and their entry."""

from __future__ import annotations

import hashlib
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from cpt_bench.evaluation.predictions import graded
from cpt_bench.files import write_json, write_jsonl
from cpt_bench.leaderboard.pack import About, pack
from cpt_bench.leaderboard.recompute import expected_cells, stages_of
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.scoring import write_scores
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.plan import stage_seed
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite, load_suite
from cpt_bench.tasks.nano.publish import publish

HERE = Path(__file__).parent
TASKS = ("science", "counting", "text")
GENERAL = ("knowledge",)
N = 60
BASE = hashlib.sha256(b"base").hexdigest()
VERSIONS = {"cptbench": "0.1.0", "numpy": "2.0"}


def make_suite(folder: Path) -> Path:
    """``small``: three nano tasks and one probe with ``N`` test samples each, and a base row."""
    nano = HERE.parent.parent / "tasks/nano"
    folder.mkdir(parents=True)
    for name in (*TASKS, *GENERAL):
        card = yaml.safe_load((nano / f"{name}.yaml").read_text())
        for split in card["splits"].values():
            split["n"] = 32
        card["splits"]["test"]["n"] = N
        # One line a split, as the tool that writes the hashes expects.
        splits = "".join(
            f"  {s}: {{n: {v['n']}, sha256: {v['sha256']}}}\n"
            for s, v in card.pop("splits").items()
        )
        text = yaml.safe_dump(card, sort_keys=False) + "splits:\n" + splits
        (folder / f"{name}.yaml").write_text(text)
    suite = yaml.safe_load((nano / "suite.yaml").read_text())
    suite |= {"name": "small", "sequence": [*TASKS], "general": [*GENERAL]}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    publish(folder)
    scores = {
        name: {"accuracy": round(100 * sum(base_right(name)) / N, 6), "n": N}
        for name in (*TASKS, *GENERAL)
    }
    write_json(folder / "base_row.json", {"model": "small-base", "weights": BASE, "scores": scores})
    return folder


def base_right(name: str) -> list[bool]:
    """Which questions the base model gets right, the same in every seed."""
    share = 0.8 if name in GENERAL else 0.4
    return [random.Random(f"base {name} {i}").random() < share for i in range(N)]


def weights(seed: int, stage: int, joint: bool = False) -> str:
    kind = "joint " if joint else ""
    return BASE if stage == 0 else hashlib.sha256(f"{kind}{seed} {stage}".encode()).hexdigest()


def right(seed: int, stage: int, name: str) -> list[bool]:
    """Who is right after a stage: some are lost and some won, more won on the stage's own task."""
    now = base_right(name)
    for t in range(1, stage + 1):
        rng = random.Random(f"{seed} {t} {name}")
        win = 0.5 if name in TASKS and TASKS.index(name) + 1 == t else 0.06
        now = [rng.random() > 0.1 if ok else rng.random() < win for ok in now]
    return now


def right_jointly(seed: int, name: str) -> list[bool]:
    """Who is right after all tasks at once: some are lost, many won, on every task alike."""
    rng, win = random.Random(f"joint {seed} {name}"), 0.6 if name in TASKS else 0.06
    return [rng.random() > 0.1 if ok else rng.random() < win for ok in base_right(name)]


def rows_of(
    suite: Suite, name: str, oks: list[bool], seed: int, stage: int
) -> list[dict[str, Any]]:
    card = suite.card(name)
    samples = load_split(card, "test")
    rows = []
    for i, (sample, ok) in enumerate(zip(samples, oks, strict=True)):
        rng = random.Random(f"say {seed if stage else 0} {stage} {name} {i}")
        answer = sample.answers[0] if ok else f"zz{rng.randrange(9)}"
        thought = f"<think> {rng.randrange(99)}</think>" if rng.random() < 0.3 else ""
        rows.append({"id": sample.id, "reply": f"{thought}<answer>{answer}</answer>", "tokens": 5})
    return graded(rows, card, samples, suite.protocol)


def make_run(
    folder: Path, suite_folder: Path, seed: int, joint: bool = False, **changes: Any
) -> Path:
    """A run folder as ``cptbench run`` leaves it, its answers made by a coin instead of a model."""
    suite = load_suite(suite_folder)
    paths = RunFolder(folder, suite.sequence)
    origin = {"spec": "sft", "module": "cpt_bench.trainers.sft:SFT", "cptbench": "0.1.0"}
    run = {
        "format": 1,
        "suite": {
            "spec": str(suite_folder), "name": suite.name, "version": suite.version,
            "fingerprint": suite.fingerprint(),
        },
        "trainer": "sft", "origin": origin, "config": {"learning_rate": 1e-4},
        "privileges": {"replay_samples_per_task": 0, "joint": joint, "earlier_checkpoints": False},
        "budget": {"samples": None},
        "seed": seed, "order": [*suite.sequence], "limit": None, "threads": 1,
        "base": {"path": "checkpoint", "weights": BASE}, "versions": VERSIONS,
        "hardware": {"cpu": "abacus", "cores": 2, "gpus": []},
        "git": None,
        "sessions": [{"steps_done": 1, "train_seconds": 2.0, "generation_seconds": 0.0,
                      "evaluate_seconds": 1.0, "wall_seconds": 3.0}],
    } | changes  # fmt: skip
    write_json(paths.run_json, run)
    ledger = Ledger(folder)
    common = {"limit": None, "threads": 1, "versions": VERSIONS}
    stages = stages_of(suite.sequence, joint)
    for before, t in pairwise(stages):
        tasks = suite.sequence if joint else (suite.sequence[t - 1],)
        inputs = {
            "tasks": [suite.card(task).model_dump(mode="json") for task in tasks],
            "protocol": suite.protocol.model_dump(mode="json"), "index": t,
            "parent": weights(seed, before), "state": None, "earlier": [],
            **{k: run[k] for k in ("origin", "config", "privileges", "budget")},
            **common, "seed": stage_seed(seed, t),
        }  # fmt: skip
        facts = {
            "weights": weights(seed, t, joint),
            "generation_seconds": 0.0,
            "peak_memory_mib": 1.0,
        }
        ledger.commit(f"stage-{t}/train", inputs, [], facts, 1.0)
    for t, name in expected_cells(suite, suite.sequence, joint):
        file = paths.predictions(t, name)
        # Joint runs answer like other seeds of other stages: well on all tasks at once.
        oks = right_jointly(seed, name) if joint and t else right(seed, t, name)
        write_jsonl(file, rows_of(suite, name, oks, seed + 100 * joint, t))
        inputs = {
            "weights": weights(seed, t, joint), "card": suite.card(name).model_dump(mode="json"),
            "protocol": suite.protocol.model_dump(mode="json"), "engine": "transformers", **common,
        }  # fmt: skip
        facts = {"weights": weights(seed, t, joint)}
        ledger.commit(f"stage-{t}/evaluate/{name}", inputs, [paths.relative(file)], facts, 0.5)
    write_scores(folder)
    return folder


def make_entry(folder: Path, seeds: int = 3, **about: Any) -> tuple[Path, Path]:
    """(the suite's folder, the entry's folder) below ``folder``."""
    suite = make_suite(folder / "suite")
    boards = folder / "leaderboards"
    boards.mkdir()
    (boards / "RULES.md").write_text("rules\n")
    return suite, add_entry(folder, suite, boards, seeds, **about)


def add_entry(
    folder: Path, suite: Path, boards: Path, seeds: int = 3, joint: bool = False, **about: Any
) -> Path:
    """One more entry on a board, of runs made in ``folder``."""
    kind = "joint" if joint else "run"
    runs = [make_run(folder / f"{kind}{seed}", suite, seed, joint) for seed in range(seeds)]
    said = {
        "name": "SFT, small",
        "authors": ("A. Uthor",),
        "date": "2026-11-22",
        "notes": "A test.",
    }
    return pack(runs, About(**said | about), boards)


def resign(seed: Path) -> None:
    """Write a seed's manifest anew, as whoever tampers with its files would."""
    file = seed / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"] = {
        p.relative_to(seed).as_posix(): {
            "sha256": hashlib.sha256(p.read_bytes()).hexdigest(), "bytes": p.stat().st_size
        }
        for p in sorted(seed.rglob("*")) if p.is_file() and p.name != "manifest.json"
    }  # fmt: skip
    file.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
