"""A trainer's view of the disk: it cannot be taken away, and who ends its watch is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

INSIDE = """
import ctypes, json, os, subprocess, sys
from pathlib import Path
from cpt_bench.stage import isolation
root, how = Path(sys.argv[1]), sys.argv[2]
hidden, beside = root / "run", root / "beside"
if how == "unmounts":
    isolation._drop_rights = lambda: None
watch = isolation.enter(isolation.View((hidden,), (hidden / "work",), (), (beside, root / "page")))
if watch is None:
    print(json.dumps(None))
    sys.exit()
assert (root / "page").read_text() == ""
said = {"beside": os.listdir(beside), "work": os.listdir(hidden / "work"), "before": watch.opened()}
umount = lambda: ctypes.CDLL(None).umount2(os.fsencode(hidden), 2)
if how == "looks":
    said["unmounted"] = umount() == 0
    command = f"umount -l {hidden} || unshare -Urm umount -l {hidden} || nsenter -t {os.getppid()} -m true"
    said["by a child"] = subprocess.run(command, shell=True, capture_output=True).returncode == 0
    said["read"] = (hidden / "gold").read_text()
elif how == "unmounts":
    said["unmounted"] = umount() == 0
elif how == "closes":
    os.close(watch.handle)
elif how == "hides":
    os.dup2(os.open("/dev/null", os.O_RDONLY), watch.handle)
print(json.dumps({**said, "found": watch.opened()}))
"""


def inside(root: Path, how: str) -> dict[str, Any]:
    """What a process in a view of ``root`` sees."""
    for name in ("run/gold", "run/work/mine", "beside/gold", "page"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("42")
    command = [sys.executable, "-c", INSIDE, str(root), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] | None = json.loads(done.stdout)
    if found is None:
        pytest.skip("no namespaces here")
    assert (found["beside"], found["work"], found["before"]) == ([], ["mine"], [])
    return found


def test_a_view_cannot_be_taken_away(tmp_path: Path) -> None:
    found = inside(tmp_path, "looks")
    assert not found["unmounted"] and not found["by a child"]
    assert found["read"] == "" and found["found"] == [str(tmp_path / "run/gold")]


@pytest.mark.parametrize("how", ["unmounts", "closes", "hides"])
def test_a_watch_that_was_ended_is_a_fault(how: str, tmp_path: Path) -> None:
    assert inside(tmp_path, how)["found"]


ONE_FILE = """
import json, sys
from pathlib import Path
from cpt_bench.stage import isolation
root = Path(sys.argv[1])
bank, code = root / "bank.json", root / "suite/grading.py"
view = isolation.View((bank, root / "suite"), (code,), (code,))
watch = isolation.enter(view)
if watch is None:
    print(json.dumps(None))
    sys.exit()
found = {"before": watch.opened(), "code": code.read_text(), "beside": (root / "free.json").read_text()}
found["allowed"] = watch.opened()
found["bank"] = bank.read_text()
try:
    code.write_text("changed")
except OSError:
    found["code stays"] = True
print(json.dumps({**found, "seen": watch.opened(), "hides": [view.hides(str(p)) for p in (bank, code)]}))
"""


def test_a_single_file_is_hidden_and_a_grader_among_hidden_cards_is_not(tmp_path: Path) -> None:
    for name in ("bank.json", "free.json", "suite/grading.py", "suite/card.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    command = [sys.executable, "-c", ONE_FILE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found is None:
        pytest.skip("no namespaces here")
    assert found == {
        "before": [], "code": "suite/grading.py", "beside": "free.json", "allowed": [],
        "bank": "", "code stays": True, "seen": [str(tmp_path / "bank.json")], "hides": [True, False],
    }  # fmt: skip
    assert (tmp_path / "bank.json").read_text() == "bank.json"
