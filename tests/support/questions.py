"""What engines are asked, in the words of the tiny suites."""

from __future__ import annotations

from cpt_bench.engines import Request
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite
from tests.support import places
from tests.support.families import TEXT

SUITE, WORDS = load_suite(places.TINY), load_suite(places.WORDS)


def questions(n: int) -> list[Request]:
    """Some with a picture, some without, in the protocol's words."""
    rows = []
    for name in (*SUITE.sequence, *SUITE.general):
        for sample in load_split(SUITE.card(name), "test")[:n]:
            for style in ("neutral", "reasoning"):
                prompt = SUITE.protocol.prompt(sample.question, style)
                rows.append(Request(f"{sample.id}-{style}", prompt, sample.images))
    return rows


def of_family(family: str) -> list[Request]:
    """Four questions to a family of models: with pictures where it reads them."""
    suite = WORDS if family in TEXT else SUITE
    first, probe = suite.card(suite.sequence[-1]), suite.card(suite.general[0])
    samples = [*load_split(first, "test")[:3], *load_split(probe, "test")[:1]]
    return [Request(s.id, suite.protocol.prompt(s.question), s.images) for s in samples]
