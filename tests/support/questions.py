"""What engines are asked, in the words of the tiny suite."""

from __future__ import annotations

from cpt_bench.engines import Request
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite
from tests.support.places import TINY

SUITE = load_suite(TINY)


def questions(n: int) -> list[Request]:
    """Some with a picture, some without, in the protocol's words."""
    rows = []
    for name in (*SUITE.sequence, *SUITE.general):
        for sample in load_split(SUITE.card(name), "test")[:n]:
            for style in ("neutral", "reasoning"):
                prompt = SUITE.protocol.prompt(sample.question, style)
                rows.append(Request(f"{sample.id}-{style}", prompt, sample.images))
    return rows
