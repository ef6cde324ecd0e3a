"""The process that compares formulas; see :mod:`cpt_bench.grading.symbolic`.

Reads ``[function, answer, gold]`` as a JSON line and writes ``1`` or ``0``, or ``!`` and the name
of a missing package, until its input ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import sys
from typing import Any

MEMORY = 3 << 30
"""Limit of the address space in bytes; a formula that needs more is wrong."""

CPU_SECONDS = 5.0
"""CPU seconds for one comparison; the system ends a process that takes more.

Not wall time, which the libraries' own limits use: whether an answer is right must not depend on
how busy the machine is.
"""


def mathruler(answer: str, gold: str) -> bool:
    from mathruler.grader import grade_answer

    return bool(grade_answer(answer, gold))


def math(answer: str, gold: str) -> bool:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    def read(text: str) -> list[Any]:
        targets = (LatexExtractionConfig(), ExprExtractionConfig())
        parsed: list[Any] = parse(
            f"${text}$",
            extraction_config=targets,
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
        return parsed

    return bool(verify(read(gold), read(answer), timeout_seconds=None))


FUNCTIONS = {"mathruler": mathruler, "math": math}


def allow(seconds: float) -> None:
    """Limit the CPU time from now on, 0 for no limit; beyond it the process is killed."""
    with contextlib.suppress(AttributeError):  # not on this system; the parent's limit remains
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer questions until the input ends."""
    import logging
    import warnings

    warnings.simplefilter("ignore")  # sympy warns about what models write
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    out, sys.stdout = sys.stdout, sys.stderr  # libraries that print must not answer
    for module in ("sympy", "mathruler.grader", "math_verify"):  # before anything is timed
        with contextlib.suppress(ImportError):  # reported when a comparison needs it
            importlib.import_module(module)

    with contextlib.suppress(ImportError, ValueError, OSError):  # else the time limit remains
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        function, answer, gold = json.loads(line)
        allow(CPU_SECONDS)
        try:
            verdict = str(int(FUNCTIONS[function](answer, gold)))
        except ImportError as error:
            verdict = f"!{error.name}"
        except Exception:  # if a library fails on a strange formula, it is not equal
            verdict = "0"
        allow(0)
        print(verdict, file=out, flush=True)


if __name__ == "__main__":
    main()
