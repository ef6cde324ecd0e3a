"""A suite of somebody else's, in a package with its grader and a trainer, its questions elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

SUITE = """
name: pairs
title: sums, then doubles
version: "1.0"
description: Two tasks whose questions are read from files.
base_model: none
sequence: [sums, doubles]
protocol:
  name: plain
  style: neutral
  prompts: {neutral: "{question}"}
  form: {open: "<answer>", close: "</answer>"}
  decoding: {max_new_tokens: 6}
  reward: {accuracy: 0.9, format: 0.1}
"""
CARD = """
name: %(name)s
title: %(name)s
description: Numbers.
version: 1
source: {kind: generator, target: "%(package)s.samples:make", options: {task: %(name)s}}
splits:
  train: {n: 4, sha256: null}
  test: {n: 3, sha256: null}
grader: "%(package)s.grading:score"
answer_kinds: [number]
licence: CC0-1.0
"""
SAMPLES = """
import json
from pathlib import Path

from cpt_bench.suite import Sample

BANK = Path(%r)


def make(split, n, *, task):
    rows = json.loads((BANK / f"{task}-{split}.json").read_text())
    return [Sample(id=f"{split}-{i}", question=q, answers=(a,), kind="number") for i, (q, a) in enumerate(rows)]
"""
GRADING = """
from .numbers import as_int


def score(answer, sample):
    "1 for the number."
    return float(as_int(answer) == as_int(sample.answers[0]))
"""
NUMBERS = """
def as_int(text):
    return int(text) if text.strip().isdigit() else None
"""
TRAINERS = """
import shutil
from pathlib import Path

from cpt_bench.trainer import Trainer


class Copy(Trainer):
    "Learns nothing; asks for a reward."

    def train(self, stage):
        first = stage.samples[0]
        assert stage.reward(first, first.target).total == 1.0
        shutil.copytree(stage.policy, stage.output, dirs_exist_ok=True)


class Peek(Copy):
    "Opens the test questions of a later task."

    def train(self, stage):
        Path(%r, "doubles-test.json").read_text()
        super().train(stage)
"""
BANK = {
    "sums-train": [["1+1", "2"], ["1+2", "3"], ["2+2", "4"], ["2+3", "5"]],
    "sums-test": [["1+3", "4"], ["1+4", "5"], ["3+3", "6"]],
    "doubles-train": [["twice 1", "2"], ["twice 2", "4"], ["twice 3", "6"], ["twice 4", "8"]],
    "doubles-test": [["twice 5", "10"], ["twice 6", "12"], ["twice 7", "14"]],
}


def write_package(parent: Path, bank: Path, package: str = "pairs_suite") -> Path:
    """A package with ``suite.yaml`` at its top; its questions are in ``bank``, outside it."""
    folder = parent / package
    folder.mkdir(parents=True)
    bank.mkdir(parents=True)
    for name, rows in BANK.items():
        (bank / f"{name}.json").write_text(json.dumps(rows))
    files = {
        "__init__.py": "",
        "suite.yaml": SUITE,
        "samples.py": SAMPLES % str(bank),
        "grading.py": GRADING,
        "numbers.py": NUMBERS,
        "trainers.py": TRAINERS % str(bank),
        **{
            f"{name}.yaml": CARD % {"name": name, "package": package}
            for name in ("sums", "doubles")
        },
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def pin(folder: Path) -> None:
    """Write the hashes of its splits into the cards."""
    from cpt_bench.sources import load_split, split_digest
    from cpt_bench.suite import load_suite

    for card in load_suite(folder).cards.values():
        file = folder / f"{card.name}.yaml"
        for split in card.splits:
            sha256 = split_digest(load_split(card, split, check=False))
            file.write_text(file.read_text().replace("sha256: null", f"sha256: '{sha256}'", 1))
