"""A helper: a process that runs a module of this package and answers this process, line by line."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading


class HelperProcess:
    """A helper that is started when it is first needed, and ends with the process that started it.

    A forked child shares its parent's pipes, and answers would mix: it starts a helper of its own.

    Args:
        module: What the helper runs, as ``python -m`` has it.
        variables: Environment variables that it gets besides this process's own.

    Attributes:
        lock: To hold while a question is asked and its answer is read.
        process: The helper, if one was started.
    """

    def __init__(self, module: str, **variables: str) -> None:
        self.module, self.variables = module, variables
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0
        atexit.register(self.stop)

    def owned(self) -> bool:
        """Whether a helper was started by this very process."""
        return self.process is not None and self.owner == os.getpid()

    def start(self) -> None:
        """Start the helper, in place of any other."""
        # The package may be importable only because of how this process was started.
        paths = os.pathsep.join(p for p in sys.path if p)
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, **self.variables},
        )
        self.owner = os.getpid()

    def stop(self) -> None:
        """End the helper, if it is this process's own."""
        owned, process = self.owned(), self.process
        self.process = None
        if process is None or not owned:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
