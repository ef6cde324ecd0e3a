"""The command line in a test: in this process, in one of its own, and where torch cannot be imported."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.support.places import TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
"""The fixture ``cli``: ``cptbench`` in an empty folder."""

LIGHT = """
import sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "trl", "datasets", "scipy", "pandas"}:
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Ban())
from cpt_bench.cli.main import entry
sys.argv = ["cptbench", *sys.argv[1:]]
entry()
"""
"""A program for ``python -c``: ``cptbench`` as the light installation has it."""


def here(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """``cptbench`` in this process and ``folder``: its fork server is warm from the second time on.

    What happens when a *process* starts, is killed or interrupted is tried in processes.
    """
    from cpt_bench.cli.main import entry

    out, err, before, code = io.StringIO(), io.StringIO(), (Path.cwd(), sys.argv), 0
    os.chdir(folder)
    sys.argv = ["cptbench", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            entry()
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception:
        traceback.print_exc(file=err)
        code = 1
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


SFT = [
    "--trainer", "sft", "--set", "learning_rate=1e-3", "--set", "max_steps=2", "--set", "device=cpu",
]  # fmt: skip


def sft_args(model: Path, *more: object) -> list[str]:
    """A short run of SFT on the tiny suite, which shares nothing."""
    return ["run", *SFT, "--suite", str(TINY), "--base", str(model), "--no-share", *map(str, more)]
