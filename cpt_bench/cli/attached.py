"""``python -m cpt_bench.cli.attached run …``: ``cptbench run`` that ends with its parent process.

Standard input is a pipe from the sweep's worker. When that worker dies, in whatever way, the pipe
closes and the run ends too, so that it does not go on writing to a folder in which another worker
continues the run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    # The run's own workers hold a pipe to this process and end with it.
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the command line until it is done, or until its parent dies."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from cpt_bench.cli.main import entry

    sys.argv[0] = "cptbench"
    entry()


if __name__ == "__main__":
    main()
