"""Programs that print without end: the log's head and tail stay, and memory does not grow."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.worker import logs
from cpt_bench.worker.logs import Lines, Sometimes, cut, last_words
from tests.support.noisy import print_without_end


def test_lines_of_a_log_that_are_no_rows_are_passed_over(tmp_path: Path) -> None:
    """While the command runs: its whole log is checked after it ends."""
    from cpt_bench.stage.command import Follower

    told: list[Any] = []
    (tmp_path / "log.jsonl").write_text(f'{5000 * "["}\nno\n[1]\n{{"step": 1}}\n')
    with Follower(tmp_path / "log.jsonl", told.append):
        pass
    assert told == [{"step": 1}]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "HEAD", 100)
    monkeypatch.setattr(logs, "TAIL", 50)


def test_head_and_tail_stay_and_the_cut_is_in_the_log(small: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"h" * 100 + b"m" * 10_000 + b"t" * 50)
    assert cut(log) == 10_000
    assert log.read_bytes() == (
        b"h" * 100
        + b"\n[cptbench: 10000 bytes were cut out here; the log's beginning and end stay]\n"
        + b"t" * 50
    )
    before = log.read_bytes()
    assert cut(log) == 0 and log.read_bytes() == before  # short enough
    with log.open("ab") as stream:
        stream.write(b"u" * 1000 + b"v" * 50)
    assert cut(log) == 10_000 + 50 + 1000  # what was the end before is the middle now
    assert log.read_bytes().count(b"were cut out") == 1
    assert log.read_bytes().startswith(b"h" * 100) and log.read_bytes().endswith(b"\n" + b"v" * 50)


@pytest.mark.parametrize("size", [0, 1, 150, 151, 240])
def test_a_short_log_is_left_alone(size: int, small: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(os.urandom(size))
    before = log.read_bytes()
    assert cut(log) == 0 and log.read_bytes() == before
    assert cut(tmp_path / "none") == 0 and cut(tmp_path) == 0


def test_a_log_that_still_grows_has_some_slack(small: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 1000)
    assert cut(log, slack=2000) == 0 and cut(log) == 850


def test_who_writes_meanwhile_goes_on_at_the_end(tmp_path: Path) -> None:
    """Nothing between the cuts is torn, and what was printed last is there."""
    log = tmp_path / "log"
    code = "for n in range(60000): print(f'line {n:>90}')\nprint('last')"
    with log.open("ab") as stream:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=stream)
    while process.poll() is None:
        cut(log, 1 << 20)
    assert log.read_bytes().endswith(b"last\n")
    for line in log.read_bytes().splitlines()[:-1]:
        assert line[:5] in (b"line ", b"[cptb", b"") or b"cut out" in log.read_bytes()
    assert log.stat().st_size < logs.HEAD + logs.TAIL + (2 << 20)


@pytest.mark.parametrize(
    "piece", [b"x" * 70 + b"\n", b"x", b"\r", b"\n", b"\xff\xfe", "é→".encode()]
)
def test_memory_is_constant(piece: bytes, tmp_path: Path) -> None:
    """Lines, no line end at all, bars of progress, empty lines, no UTF-8, two and three bytes each."""
    log, block = tmp_path / "log", (piece * (1 << 16))[: 1 << 16]
    lines, said = Lines(500), 0
    tracemalloc.start()
    with log.open("ab") as stream:
        for _ in range(400):  # 25 MiB
            stream.write(block)
            said += len(lines.feed(block)[1][-1:])
    assert cut(log) > 15 << 20
    assert len(last_words(log, 5)) < 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert log.stat().st_size < (9 << 20)


@pytest.mark.parametrize(
    ("blocks", "whole"),
    [
        ([b"one\ntw", b"o\nthree"], ["one", "two", "three"]),
        ([b"one\r", b"\ntwo\rthree\r\n"], ["one", "two", "three"]),
        ([b"caf\xc3", b"\xa9\n"], ["café"]),
        ([b"\n\n"], ["", ""]),
        ([b"a" * 30, b"b" * 30 + b"\nc"], ["a" * 10, "c"]),
        ([], []),
        ([b"\xff"], ["\ufffd"]),
    ],
)
def test_lines_are_found_across_blocks(blocks: list[bytes], whole: list[str]) -> None:
    lines = Lines(10)
    assert [line for block in (*blocks, b"") for line in lines.feed(block)[1]] == whole


def test_so_many_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    let = Sometimes(3)
    assert [let() for _ in range(5)] == [True, True, True, False, False]
    now[0] += 1
    assert let()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["\n", "z"])
def test_a_worker_that_prints_without_end(end: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from cpt_bench.worker.process import Worker

    log = tmp_path / "log"
    worker = Worker(print_without_end, (200, end), log, "this")
    assert worker.result() == "done"
    text = log.read_bytes()
    assert len(text) <= logs.HEAD + logs.TAIL + 200 and b"bytes were cut out here" in text
    assert text.endswith(b"these are the last words\n") and text.startswith(b"xxx")


PARENT = """
import resource, sys
from pathlib import Path
from cpt_bench.worker.process import Worker
from tests.support.noisy import print_without_end

def peak(mib, name):
    worker = Worker(print_without_end, (mib, sys.argv[1]), Path(sys.argv[2]) / name, "this")
    assert worker.result() == "done"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

if __name__ == "__main__":
    before = peak(2, "small")
    print(peak(60, "large") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["\n", "z"])
def test_the_parent_s_memory_does_not_grow_with_the_output(end: str, tmp_path: Path) -> None:
    """What the system gives the process, in KiB: 120 MiB are printed, with and without lines."""
    pytest.importorskip("torch")
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), end, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 32 << 10, "KiB"


class Document:
    """Of a stage's document what a command's trainer uses."""

    def __init__(self, log: Path) -> None:
        self.log, self.policy, self.system = log, log.parent, ""

    def model_copy(self, update: dict[str, Any]) -> Document:
        return self

    def write(self, file: Path) -> None:
        file.write_text("{}")


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("head -c 12000000 /dev/zero | tr '\\0' x; exit 3", 3, "xxx"),
        ("yes 'a line of words' | head -c 12000000; echo last; exit 4", 4, "last"),
        ("head -c 12000000 /dev/zero | tr '\\0' '\\r'; echo last; exit 5", 5, "last"),
        ("head -c 12000000 /dev/urandom; echo; echo last; exit 6", 6, "last"),
    ],
)
def test_a_command_that_prints_without_end(
    script: str, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext
    from types import SimpleNamespace

    from cpt_bench.errors import TrainerFault
    from cpt_bench.stage import command

    told: list[str] = []
    stage = SimpleNamespace(
        document=tmp_path / "stage.json", output=tmp_path, tell=told.append, log=lambda row: None
    )
    document = Document(tmp_path / "log.jsonl")
    monkeypatch.setattr(command.StageDocument, "read", lambda file: document)
    monkeypatch.setattr(command, "chat_of", lambda *start: None)
    monkeypatch.setattr(command, "reward_server", lambda stage: nullcontext(""))
    (tmp_path / "train.sh").write_text(script)
    trainer = command.find(f"cmd:sh {tmp_path / 'train.sh'}").value(command.Settings())
    with (tmp_path / "out").open("w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        tracemalloc.start()
        with pytest.raises(TrainerFault, match=f"exited with {code}; its last output: .*{words}"):
            trainer.train(stage)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        monkeypatch.undo()
    assert peak < 8 << 20
    assert (tmp_path / "out").stat().st_size >= 12_000_000, "the log has it all, until it is cut"
    assert all(len(line) <= command.LONGEST for line in told) and len(told) < 100 * command.TOLD
