"""Standard input and output of commands whose data are UTF-8, whatever the locale."""

from __future__ import annotations

import io
import sys

from cpt_bench.files import HALVES


def utf8_output() -> None:
    """From now on standard output and error are UTF-8; half a surrogate pair is an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a notebook or a test put there
            stream.reconfigure(encoding="utf-8", errors=HALVES)


def read_input() -> bytes:
    """All of standard input, as it was sent."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        data: bytes = sys.stdin.buffer.read()
        return data
    return sys.stdin.read().encode(errors=HALVES)
