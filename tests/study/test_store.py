"""Stored runs: the run's numbers, and every change of one is refuted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.study.store import store
from cpt_bench.study.stored import read
from cpt_bench.study.verify import Seen, verify
from tests.support.places import ROOT
from tests.support.simulated import splits, write_run

SEEN: Seen = {}
"""What the first verification has read of the suite."""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "nano-sft-seed0"
    config = {"learning_rate": 3e-4, "warmup_steps": 5, "max_steps": 100, "batch_size": 16}
    run = write_run(
        folder, trainer="sft", config={**config, "device": "cpu"}, limit=None, formless=0.1
    )
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, "base": {"weights": "0" * 64}}))
    return run


@pytest.fixture(scope="module")
def stored(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(simulated, tmp_path_factory.mktemp("stored"))


def test_a_stored_run_has_the_run_s_numbers(simulated: Path, stored: Path) -> None:
    from cpt_bench.results.scoring import score

    scores = score(simulated, splits())
    found = read(stored)
    numbers = found.claims["numbers"]
    assert scores.metrics.keys() - numbers.keys() == {"Decomposition"}, "a sum, not a number"
    for key, passport in scores.metrics.items():
        if key == "Decomposition":
            continue
        assert numbers[key] == pytest.approx(passport["value"], abs=1e-9), key
    assert numbers["Lost_mode"] > 0 and numbers["KL_new"] > 0
    assert found.claims["matrix"] == scores.matrix_json()["accuracy"]
    again = store(simulated, stored.parent / "again")
    assert again.read_bytes() == stored.read_bytes()
    assert verify(stored).report.verdict == "verified"


def spoiled(file: Path, target: Path, spoil: Any) -> Path:
    """The stored run with its lines changed by ``spoil``."""
    from cpt_bench.leaderboard.pack import zst
    from cpt_bench.leaderboard.strict import lines

    rows = [json.loads(line) for line in lines(file)]
    spoil(rows)
    name = target / file.name
    zst(name, (f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows))
    return name


def first(rows: list[Any], kind: str) -> Any:
    return next(row for row in rows if row["kind"] == kind)


def a_reply(rows: list[Any]) -> None:
    row = first(rows, "answers")
    at = row["strict"].index(1)
    row["replies"][at] = "<answer>nothing</answer>"


def a_grade(rows: list[Any]) -> None:
    row = first(rows, "answers")
    row["strict"][row["strict"].index(0)] = 1


def a_number(rows: list[Any]) -> None:
    first(rows, "claims")["numbers"]["FM"] += 1


def a_cell(rows: list[Any]) -> None:
    first(rows, "claims")["matrix"][3][2] += 1


def a_gap(rows: list[Any]) -> None:
    rows.remove(first(rows, "answers"))


def a_benchmark(rows: list[Any]) -> None:
    """Of which nothing is left at all."""
    rows[:] = [r for r in rows if (r["kind"], r.get("name")) != ("answers", "exam")]


def a_sample(rows: list[Any]) -> None:
    for values in first(rows, "answers").values():
        if isinstance(values, list):
            values.pop()


def a_suite(rows: list[Any]) -> None:
    rows[0]["suite"]["fingerprint"] = "0" * 64


def a_forced_reply(rows: list[Any]) -> None:
    row = first(rows, "forced")
    row["lenient"][row["lenient"].index(0)] = 1


def a_type(rows: list[Any]) -> None:
    first(rows, "answers")["strict"] = "yes"


def a_kind(rows: list[Any]) -> None:
    first(rows, "kl")["kind"] = "kll"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (a_reply, "grade"), (a_grade, "grade"), (a_number, "metric"), (a_cell, "matrix"),
        (a_gap, "incomplete"), (a_sample, "missing-id"), (a_suite, "suite-version"),
        (a_forced_reply, "grade"), (a_benchmark, "incomplete"), (a_type, "missing-id"), (a_kind, "schema"),
    ],
)  # fmt: skip
def test_a_changed_stored_run_is_refuted(
    spoil: Any, code: str, stored: Path, tmp_path: Path
) -> None:
    report = verify(spoiled(stored, tmp_path, spoil), seen=SEEN).report
    assert report.verdict == "refuted"
    assert code in {finding.code for finding in report.errors}


def test_what_is_no_finished_run_is_not_stored(simulated: Path, tmp_path: Path) -> None:
    limited = write_run(tmp_path / "limited", limit=5)
    with pytest.raises(CptBenchError, match="was limited to 5 samples"):
        store(limited, tmp_path)


@pytest.mark.slow
def test_what_an_older_run_lacks_is_measured_from_its_weights(
    run_copy: Path, tiny_model: Path
) -> None:
    pytest.importorskip("torch")
    from cpt_bench.study.measure import measure

    measured = [*run_copy.glob("stages/*/kl.jsonl"), *run_copy.glob("stages/*/forced/*/*.jsonl")]
    before = {path: path.read_bytes() for path in (*measured, run_copy / "metrics.json")}
    records = [*run_copy.glob("ledger/*.kl.json"), *run_copy.glob("ledger/*.diagnose.*")]
    assert len(measured) == len(records) == 3  # a random model knows nothing to lose
    for path in (*measured, *records, run_copy / "metrics.json"):
        path.unlink()
    with pytest.raises(CptBenchError, match="started from another base model"):
        measure(run_copy, ROOT / "tasks/nano/checkpoint")
    assert measure(run_copy, tiny_model) == len(records)
    assert {path: path.read_bytes() for path in before} == before
    assert measure(run_copy, tiny_model) == 0
    last = run_copy / "ledger/stage-3.train.json"
    kept = last.rename(run_copy / "kept.json")
    with pytest.raises(CptBenchError, match="is not finished"):
        measure(run_copy, tiny_model)
    kept.rename(last)
    # Weights that are not those that were evaluated are refused.
    (weights,) = run_copy.glob("stages/1-*/checkpoint/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (run_copy / "ledger/stage-1.kl.json").unlink()
    with pytest.raises(CptBenchError, match="is not the checkpoint that was evaluated"):
        measure(run_copy, tiny_model)
