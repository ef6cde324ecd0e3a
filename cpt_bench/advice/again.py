"""Whether a suite is the same when it is read again: in another process, from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from cpt_bench.files import parsed
from cpt_bench.suite import Suite
from cpt_bench.suite.origins import Generator


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        place: ``task``, ``task/split`` or the suite's name.
        ok: True; False where a run would be wrong or fail; None where a person has to judge.
        what: What was found, in one line.
        cure: What to do about it; empty where nothing has to be done.
    """

    place: str
    ok: bool | None
    what: str
    cure: str = ""


AGAIN = """
import json, sys
from cpt_bench.sources import split_digest
from cpt_bench.sources.loading import made_split
from cpt_bench.suite import open_suite
suite = open_suite(sys.argv[1])
found = {f"{n}/{s}": split_digest(made_split(suite.card(n), s, check=False))
         for n in sys.argv[2:] for s in suite.card(n).splits}
print(json.dumps([suite.fingerprint(), found]))
"""


def made_again(suite: Suite) -> Iterator[Finding]:
    """The same in another process, with other hash seeds, from another folder."""
    made = [name for name, card in suite.cards.items() if isinstance(card.source, Generator)]
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", AGAIN, str(suite.place.absolute()), *made],
            cwd=elsewhere,
            env={
                **os.environ,
                "PYTHONHASHSEED": "1",
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        cure = "Name files from Path(__file__).parent, not from where a command is run"
        yield Finding(suite.name, False, f"cannot be read from another folder ({last})"[:300], cure)
        return
    fingerprint, found = parsed(done.stdout)
    moved = [place for place, sha256 in found.items() if sha256 != _published(suite, place)]
    if moved:
        what = f"{', '.join(moved)}: other samples in a second process"
        cure = "Seed every source of chance (random.Random(seed)), and sort sets and listed files"
        yield Finding(suite.name, False, what, cure)
    elif fingerprint != suite.fingerprint():
        yield Finding(
            suite.name,
            False,
            "its fingerprint differs in a second process",
            "Its YAML names something that changes; write it out",
        )
    else:
        yield Finding(suite.name, True, f"fingerprint {fingerprint} here and in a second process")


def _published(suite: Suite, place: str) -> str | None:
    name, _, split = place.partition("/")
    return suite.card(name).splits[split].sha256
