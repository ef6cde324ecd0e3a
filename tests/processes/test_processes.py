"""A helper belongs to the process that started it."""

from __future__ import annotations

import os
from pathlib import Path

from cpt_bench.processes import HelperProcess

WAITS = "json.tool"
"""A module that reads its input to the end."""


def test_it_runs_until_it_is_stopped() -> None:
    helper = HelperProcess(WAITS)
    assert not helper.owned()
    helper.stop()  # nothing to stop
    helper.start()
    process = helper.process
    assert helper.owned() and process is not None and process.poll() is None
    helper.stop()
    assert process.poll() is not None and helper.process is None and not helper.owned()


def test_a_forked_child_has_none_and_leaves_its_parent_s_alone() -> None:
    helper = HelperProcess(WAITS)
    helper.start()
    process = helper.process
    assert process is not None
    child = os.fork()
    if child == 0:
        owned = helper.owned()
        helper.stop()
        os._exit(1 if owned else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert helper.owned() and process.poll() is None
    helper.stop()


def test_it_gets_this_process_s_paths() -> None:
    helper = HelperProcess("site")
    helper.start()
    assert helper.process is not None and helper.process.stdout is not None
    shown = helper.process.stdout.read().decode()
    helper.stop()
    assert "sys.path" in shown and str(Path.cwd()) in shown
