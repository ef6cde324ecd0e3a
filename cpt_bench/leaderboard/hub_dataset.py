"""A suite's gold as a data set repository of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jinja2

from cpt_bench.leaderboard.hub_text import as_yaml, home, write
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite

TASK_IDS: Final = {
    "Learn": "learn", "AvgAcc": "avg_acc", "FM": "fm", "GeneralDelta": "general_delta",
    "GapToJoint": "gap_to_joint",
}  # fmt: skip
"""Headline metric to its task id on the hub; a benchmark's is its name."""


def write_dataset(place: Path, env: jinja2.Environment, suite: Suite) -> None:
    """The card of the suite's gold, and the gold itself where the suite makes its questions.

    The gold of other people's data sets is theirs to publish: of those there is the card alone.
    """
    names = (*suite.sequence, *suite.general)
    cards = [suite.card(name) for name in names]
    own = [card for card in cards if card.source.kind == "generator"]
    for card in own:
        rows = (
            sample.model_dump(mode="json", include={"id", "question", "answers", "kind", "choices"})
            for sample in load_split(card, "test")
        )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write(place / f"gold/{card.name}.jsonl", lines)
    licences: dict[str, list[str]] = {}
    for card in cards:
        licences.setdefault(card.licence, []).append(card.name)
    count = sum(card.splits["test"].n for card in cards)
    size = "n<1K" if count < 1000 else "1K<n<10K" if count < 10_000 else "10K<n<100K"
    open_ = all(licence.lower().startswith("apache-2.0") for licence in licences)
    metadata = {
        "language": ["en"],
        "license": "apache-2.0" if open_ else "other",
        "pretty_name": f"cptbench {suite.name} {suite.version}: gold",
        "task_categories": ["visual-question-answering"],
        "size_categories": [size],
        "tags": ["cptbench", "benchmark", "continual-learning"],
        "annotations_creators": ["machine-generated" if len(own) == len(cards) else "found"],
        **({"configs": _configs([card.name for card in own])} if own else {}),
    }
    text = env.get_template("dataset_card.md").render(
        metadata=as_yaml(metadata),
        suite=suite,
        home=home(),
        fingerprint=suite.fingerprint(),
        cards=[
            {
                "name": card.name, "role": card.role, "n": card.splits["test"].n,
                "grader": card.grader, "sha256": card.splits["test"].sha256,
            }
            for card in cards
        ],
        licences=list(licences.items()),
    )  # fmt: skip
    write(place / "README.md", text)
    if len(own) == len(cards):
        write(place / "eval.yaml", as_yaml(_benchmark(suite)))


def _configs(names: list[str]) -> list[dict[str, Any]]:
    """All questions by default, and each benchmark's."""
    files = {"default": "gold/*.jsonl", **{name: f"gold/{name}.jsonl" for name in names}}
    return [
        {"config_name": name, "data_files": [{"split": "test", "path": path}]}
        for name, path in files.items()
    ]


def _benchmark(suite: Suite) -> dict[str, Any]:
    """``eval.yaml``: what the hub's board of this data set has columns for."""
    tasks = [
        {"id": name, "config": name, "split": "test"} for name in (*suite.sequence, *suite.general)
    ]
    tasks += [{"id": task, "config": "default", "split": "test"} for task in TASK_IDS.values()]
    return {
        "name": f"cptbench {suite.name}",
        "description": suite.description,
        "evaluation_framework": "cptbench",
        "tasks": tasks,
    }
