"""Work for a worker that prints a lot."""

from __future__ import annotations

import os
import sys
from typing import Any


def print_without_end(say: Any, mib: int, end: str) -> str:
    """Through Python's stream, and past it."""
    for _ in range(mib // 2):
        os.write(1, (b"x" * 1023 + end.encode()) * 1024)
        sys.stdout.write(("y" * 1023 + end) * 1024)
    print("these are the last words")
    return "done"
