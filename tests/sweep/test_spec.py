"""A sweep's file: the runs it stands for, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.sweep.spec import cells, read_sweep
from tests.support.sweeps import write

MINIMAL = "runs: [{trainers: [sft]}]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("runs: [{trainer: [sft]}]", "sweep.yaml: runs.0: no such key: 'trainer'. Did you mean 'trainers'?"),
        ("sead: [1]\nruns: [{trainers: [sft]}]", "sweep.yaml: no such key: 'sead'. Did you mean 'seeds'?"),
        ("seeds: [one]\nruns: [{trainers: [sft]}]", "seeds.0: Input should be a valid integer"),
        ("runs: []", "runs: List should have at least 1 item"),
        ("keep: some\n" + MINIMAL, "keep: String should match pattern"),
        ("runs: [{trainers: [sft], orders: [revrsed]}]\norders: {reversed: [b, a]}", "sweep.yaml: runs.0.orders: no order is called 'revrsed'. Did you mean 'reversed'?"),
        ("resources: {gpu: 1}\n" + MINIMAL, "sweep.yaml: resources: no such key: 'gpu'. Did you mean 'gpus'?"),
        ("- 1", "not a mapping of keys to values"),
        ("runs: [", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(CptBenchError) as found:
        read_sweep(write(tmp_path, text))
    assert line in str(found.value) and "\n" not in str(found.value)


def test_a_file_is_every_combination_seed_by_seed(tmp_path: Path) -> None:
    text = """
seeds: [0, 1]
orders: {back: [b, a]}
runs:
  - trainers: [sft]
    learning_rates: [1e-4, 3.0e-4]
  - trainers: [rft]
    orders: [default, back]
    set: {rollouts: 4}
    variants: [{algorithm: grpo}, {algorithm: rloo}]
    seeds: [7]
"""
    found = list(cells(read_sweep(write(tmp_path, text))))
    assert [(c.trainer, c.seed, c.settings, c.order) for c in found] == [
        ("sft", 0, ("learning_rate=1e-4",), None),
        ("sft", 0, ("learning_rate=3e-4",), None),
        ("sft", 1, ("learning_rate=1e-4",), None),
        ("sft", 1, ("learning_rate=3e-4",), None),
        ("rft", 7, ("rollouts=4", "algorithm=grpo"), None),
        ("rft", 7, ("rollouts=4", "algorithm=rloo"), None),
        ("rft", 7, ("rollouts=4", "algorithm=grpo"), ("b", "a")),
        ("rft", 7, ("rollouts=4", "algorithm=rloo"), ("b", "a")),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (3.0e-4, "3e-4"), (2.5e-5, "2.5e-5"), (0.05, "0.05"), (0.0, "0"), (True, "true"),
     (None, "null"), (8, "8"), ("grpo", "grpo"), ([1, 2], "[1, 2]")],
)  # fmt: skip
def test_values_are_written_as_set_takes_them(value: Any, text: str) -> None:
    from cpt_bench.settings import spelled, value_of

    assert spelled(value) == text
    assert value_of(text) == value
