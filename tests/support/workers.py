"""What a worker process carries out in tests: a module of its own, since a new process imports it by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def carry_out(say: Callable[[dict[str, Any]], None], orders: Any) -> None:
    """Answers with how many orders came before."""
    for number, order in enumerate(orders):
        if order == "raise":
            raise ValueError("no idea")
        say({"number": number, "order": order, "pid": os.getpid()})
