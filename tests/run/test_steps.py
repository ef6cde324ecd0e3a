"""Steps are found, borrowed, or worked and committed; nothing here starts a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.run.ledger import Ledger
from cpt_bench.run.steps import Commit, Record, Step, carry_out


def step(name: str, **inputs: Any) -> Step:
    return Step(name, inputs, (f"{name}.txt",))


class Worked:
    """Work that writes each step's file, and remembers what it was asked for."""

    def __init__(self, folder: Path, fails_at: str = "", skips: str = "") -> None:
        self.folder, self.fails_at, self.skips = folder, fails_at, skips
        self.asked: list[list[str]] = []

    def __call__(self, todo: Sequence[Step], commit: Commit) -> None:
        self.asked.append([s.name for s in todo])
        for each in todo:
            if each.name == self.fails_at:
                raise CptBenchError("the disk is full")
            if each.name == self.skips:
                continue
            (self.folder / each.outputs[0]).write_text(each.name)
            commit(each, {"of": each.name}, 1.25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_what_is_done_once_is_found_the_next_time(folder: Path) -> None:
    steps, known = [step("a", x=1), step("b", x=2)], list[str]()
    work = Worked(folder)

    def note(which: Step, record: Record) -> None:
        known.append(which.name)

    first = carry_out(Ledger(folder), steps, work, note)
    again = carry_out(Ledger(folder), steps, work, note)
    assert work.asked == [["a", "b"]], "the second time nothing is worked"
    assert known == ["a", "b", "a", "b"]
    assert first == again and [r["facts"]["of"] for r in first] == ["a", "b"]
    assert first[0]["seconds"] == 1.25


def test_only_what_changed_is_worked_again(folder: Path) -> None:
    work = Worked(folder)
    carry_out(Ledger(folder), [step("a", x=1), step("b", x=2)], work)
    ledger = Ledger(folder)
    records = carry_out(ledger, [step("a", x=1), step("b", x=3)], work)
    assert work.asked == [["a", "b"], ["b"]]
    assert [r["step"] for r in ledger.session] == ["b"], "what this session did"
    assert [r["step"] for r in records] == ["a", "b"], "in the order asked"


def test_what_was_committed_before_a_failure_stays(folder: Path) -> None:
    steps = [step("a", x=1), step("b", x=2), step("c", x=3)]
    with pytest.raises(CptBenchError, match="the disk is full"):
        carry_out(Ledger(folder), steps, Worked(folder, fails_at="b"))
    work = Worked(folder)
    carry_out(Ledger(folder), steps, work)
    assert work.asked == [["b", "c"]]


def test_work_that_leaves_a_step_out_is_an_error(folder: Path) -> None:
    with pytest.raises(CptBenchError, match="b ended without writing its result"):
        carry_out(Ledger(folder), [step("a"), step("b")], Worked(folder, skips="b"))


def test_a_step_of_another_run_is_borrowed(tmp_path: Path) -> None:
    one, other, shared = tmp_path / "one", tmp_path / "other", tmp_path / "shared"
    one.mkdir(), other.mkdir()
    carry_out(Ledger(one, shared), [step("a", x=1)], Worked(one))
    work, ledger = Worked(other), Ledger(other, shared)
    (record,) = carry_out(ledger, [step("a", x=1)], work)
    assert work.asked == [] and record["reused"] == "one" and ledger.session == []
    assert (other / "a.txt").read_text() == "a"


def test_an_output_that_was_changed_is_named(folder: Path) -> None:
    carry_out(Ledger(folder), [step("a")], Worked(folder))
    (folder / "a.txt").write_text("other")
    with pytest.raises(CptBenchError, match="was changed or removed after step a"):
        carry_out(Ledger(folder), [step("a")], Worked(folder))
