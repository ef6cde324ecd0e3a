"""Logs of processes that print without end: their beginning and their end, with the cut between.

A process writes to its log itself, so that its last words are there however it dies. Whoever waits
for it takes out the middle now and then; no more than a block of a log is ever in memory.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import time
from pathlib import Path

HEAD = TAIL = 4 << 20
"""Bytes of the beginning and of the end that stay."""

SLACK = 8 << 20
"""A log that still grows may be this much longer, so that it is seldom cut."""

LAST = 64 << 10
"""Bytes at the end of a log among which its last words are looked for."""

MOST = 200
"""Lines of a block, from either end, that are passed on: a block may be nothing but line ends."""

_CUT = "\n[cptbench: {} bytes were cut out here; the log's beginning and end stay]\n"
_FOUND = re.compile(re.escape(_CUT).encode().replace(rb"\{\}", rb"(\d+)"))
_BLOCK = 1 << 20


def cut(log: Path, slack: int = 0) -> int:
    """Take the middle out of a log that is too long.

    What the process writes in the instant in which the middle goes may go with it.

    Args:
        log: The file; it may be written to meanwhile, by those who append.
        slack: Bytes that it may have above the limit.

    Returns:
        How many bytes are missing now, those of earlier cuts included; 0 where nothing was cut.
    """
    try:
        size = log.stat().st_size
        if size <= HEAD + TAIL + len(_CUT) + 20 + slack:
            return 0
        with log.open("r+b") as stream:
            stream.seek(HEAD)
            before = _FOUND.match(stream.read(len(_CUT) + 24))
            earlier, kept = (int(before[1]), len(before[0])) if before else (0, 0)
            start = stream.seek(size - TAIL)
            tail = b""
            while more := stream.read(_BLOCK):  # it is written to meanwhile
                tail += more
                start += max(0, len(tail) - TAIL)
                tail = tail[-TAIL:]
            missing = earlier + start - HEAD - kept
            stream.truncate(HEAD)
        with log.open("ab") as stream:
            stream.write(_CUT.format(missing).encode() + tail)
    except OSError:  # a full disk, or a log that is a device: the process matters more than its log
        return 0
    return missing


def last_words(log: Path, lines: int) -> str:
    """The end of a log for an error's line: ``; its last output: …``, or nothing."""
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(-min(LAST, stream.seek(0, os.SEEK_END)), os.SEEK_END)
        said = stream.read().decode("utf-8", errors="replace").strip().splitlines()[-lines:]
        if said:
            return f"; its last output: {' | '.join(line.strip()[:160] for line in said)}"
    return ""


class Lines:
    """Lines out of blocks of bytes, each no longer than a limit: the rest of a line is dropped.

    Args:
        longest: Characters of a line that stay.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._open, self._any = "", False
        utf_8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf_8, translate=True)

    def feed(self, block: bytes) -> tuple[str, list[str]]:
        """The text of a block, and the lines that end in it; an empty block ends the last one."""
        text = self._decoder.decode(block, final=not block)
        *whole, rest = text.split("\n")
        if len(whole) > 2 * MOST:
            whole = [*whole[:MOST], *whole[-MOST:]]
        done = []
        for part in whole:
            done.append((self._open + part[: self.longest])[: self.longest])
            self._open, self._any = "", False
        self._open = (self._open + rest[: self.longest])[: self.longest]
        self._any = self._any or bool(rest)
        if not block and self._any:
            done.append(self._open)
            self._open, self._any = "", False
        return text, done


class Sometimes:
    """Lets through so many a second; what a person watches needs no more."""

    def __init__(self, a_second: int) -> None:
        self.a_second = a_second
        self._since, self._count = 0.0, 0

    def __call__(self) -> bool:
        """Whether one more may pass now."""
        now = time.monotonic()
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= self.a_second
