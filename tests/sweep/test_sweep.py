"""Where the runs of a sweep run: in processes on this machine, or on a Ray cluster."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from tests.support.waiting import wait_for

slow = pytest.mark.slow


def test_no_cluster_is_one_line() -> None:
    pytest.importorskip("ray")
    from cpt_bench.sweep.backends import Ray
    from cpt_bench.sweep.spec import Resources

    with pytest.raises(CptBenchError, match="no Ray cluster answers"):
        Ray("127.0.0.1:1", Resources())


# ------------------------------------------------------------------------------- this machine


SCRIPTS = {
    "fine": "print('well')",
    "says": "import sys; print('cptbench: no idea', file=sys.stderr); sys.exit(2)",
    "lost": "import sys; print('cptbench: the process was killed', file=sys.stderr); sys.exit(75)",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "long": "import threading, time; from cpt_bench.cli.attached import _end_with_parent; "
    "threading.Thread(target=_end_with_parent, daemon=True).start(); time.sleep(60)",
}


def test_a_run_decides_on_overlap_where_it_is(tmp_path: Path) -> None:
    """On a machine with one GPU ``--overlap`` by hand is refused."""
    from cpt_bench.sweep import backends

    job: Any = SimpleNamespace(arguments=("run",), name="a", folder=tmp_path / "a")
    assert backends.order(job, "all", overlap=True).command[3:] == ("run", "--keep", "all")
    assert backends.order(job, "all", overlap=False).command[-1] == "--no-overlap"


def test_local_workers_tell_lost_from_failed_and_end_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from cpt_bench.sweep import backends

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    def order(job: Any, keep: str, overlap: bool) -> Any:
        command = (sys.executable, "-c", SCRIPTS[job.name])
        return backends.Order(command, str(tmp_path / f"{job.name}.log"), str(tmp_path), {})

    monkeypatch.setattr(backends, "order", order)
    local = backends.Local(5, overlap=False)
    for name in SCRIPTS:
        local.start(Named(name), "none")  # type: ignore[arg-type]
    ended: dict[str, Any] = {}
    wait_for(lambda: ended.update({e.name: e for e in local.wait(0.1)}) or len(ended) == 4, 60)
    assert ended["fine"].status == "done"
    assert ended["says"][1:] == ("failed", "cptbench: no idea")
    assert ended["lost"][1:] == ("lost", "cptbench: the process was killed")
    assert ended["killed"].status == "lost" and "-9" in ended["killed"].why
    (process, _), *_ = local.running.values()
    local.stop()
    assert process.returncode == -signal.SIGKILL and not local.running
