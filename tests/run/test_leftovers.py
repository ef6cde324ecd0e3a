"""What a killed process left half-written is cleared at the next start, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cpt_bench.files import UNFINISHED, clear_unfinished, common_folder, write_json, write_text
from cpt_bench.run.sequencer import _clear

WRITERS = {
    "a folder that several make": "with common_folder(root / 'data/lowvision-test-12'): wait()",
    "predictions": "os.fsync = wait; write_jsonl(root / 'predictions/knowledge.jsonl', [{'a': 1}])",
    "a record": "os.fsync = wait; write_json(root / 'ledger/stage-1.train.json', {})",
    "the matrix": "os.fsync = wait; write_text(root / 'matrix.json', 'x')",
}
CODE = """
import os, sys, time
from pathlib import Path
from cpt_bench.files import common_folder, write_json, write_jsonl, write_text
root = Path(sys.argv[1])
def wait(*_):
    print("writes", flush=True)
    time.sleep(60)
"""


def unfinished(root: Path) -> list[str]:
    return [p.name for p in root.rglob("*") if UNFINISHED.fullmatch(p.name)]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_it_is_left_while_somebody_writes_it_and_cleared_when_nobody_does(
    write: str, tmp_path: Path
) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", CODE + write, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stdout.readline() == b"writes\n"
    assert len(unfinished(tmp_path)) == 1
    _clear(tmp_path, None)
    assert len(unfinished(tmp_path)) == 1, "somebody is writing it"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    _clear(tmp_path / "another", tmp_path)  # also where it lies in what runs share
    assert unfinished(tmp_path) == []


def test_nothing_else_is_cleared(tmp_path: Path) -> None:
    names = (".lock", ".gitignore", "predictions/science.jsonl", "a.settings", ".hidden", "log.12345678",
             "stages/1-a/checkpoint/.model.settings", "stages/1-a/state/.x.abcdefgh",
             "stages/1-a/memory/.x.abcdefgh", "stages/1-a/work/.x.abcdefgh")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    left = (".run.json.ab12_9xz", "stages/0-base/predictions/.knowledge.jsonl.abcdefgh")
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".shared/data/.lowvision-test-1f.q2w3e4r5/images").mkdir(parents=True)
    (tmp_path / "ledger" / f".{64 * 'a'}" / "stages").mkdir(parents=True)
    (tmp_path / ".link.abcdefgh").symlink_to(tmp_path / "predictions")
    _clear(tmp_path, None)
    assert [name for name in names if not (tmp_path / name).exists()] == []
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert (
        list((tmp_path / ".shared/data").iterdir()) == list((tmp_path / "ledger").iterdir()) == []
    )


def test_without_locks_nothing_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError("No locks available")

    (tmp_path / ".a.json.abcdefgh").write_text("x")
    monkeypatch.setattr("cpt_bench.files.fcntl.flock", refuse)
    assert clear_unfinished(tmp_path) == []
    write_json(tmp_path / "b.json", {})  # and writing goes on
    with common_folder(tmp_path / "c") as folder:
        write_text(folder / "d", "x")
    assert (tmp_path / "c/d").exists() and (tmp_path / ".a.json.abcdefgh").exists()


def test_writers_and_clearers_at_the_same_time(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from cpt_bench.files import clear_unfinished, common_folder, write_json
root, end = Path(sys.argv[1]), time.monotonic() + 1.5
for n in range(10**6):
    if time.monotonic() > end: break
    if sys.argv[2] == "clear": clear_unfinished(root)
    elif n % 2: write_json(root / f"{sys.argv[2]}.json", {"n": n})
    else:
        with common_folder(root / f"{sys.argv[2]}-{n}") as f: (f / "x").write_text("x")
        assert (root / f"{sys.argv[2]}-{n}" / "x").exists()
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), what], stderr=subprocess.PIPE)
        for what in ("a", "b", "clear")
    ]
    for process in started:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
    assert unfinished(tmp_path) == []
    assert len(list(tmp_path.iterdir())) > 4
