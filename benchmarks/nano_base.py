"""Whether a model will do as nano's base: what the shipped one had to meet before it was chosen.

``python benchmarks/nano_base.py FOLDER`` asks a sister of the base, made by
``python -m cpt_bench.tasks.nano.base.train``, and names what it does not meet.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.evaluation.predictions import Row, evaluate
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite, open_suite

BAND = (15.0, 70.0)
"""Zero-shot accuracy in percent that leaves room to learn and to forget."""
TASKS_IN_BAND = 6
PROBE = 75.0
MODES = {"neutral": 0, "direct": 0, "reasoning": 1}
"""Style of asking to whether replies begin with a thought."""


def rows(suite: Suite, base: TransformersEngine, name: str, n: int, style: str) -> list[Row]:
    """The graded replies to the first ``n`` test samples of a benchmark."""
    card = suite.card(name)
    return evaluate(base, card, load_split(card, "test")[:n], suite.protocol, style)


def unmet(suite: Suite, base: TransformersEngine, n: int = 300) -> list[str]:
    """The requirements that ``base`` does not meet, a line each."""
    out, accuracy = [], {}
    for name in (*suite.sequence, *suite.general):
        found = rows(suite, base, name, n, "neutral")
        accuracy[name] = 100 * sum(row["score"] for row in found) / len(found)
        if not all(row["format_ok"] for row in found):
            out.append(f"{name}: replies without the protocol's form")
    inside = [name for name in suite.sequence if BAND[0] <= accuracy[name] <= BAND[1]]
    if len(inside) < TASKS_IN_BAND:
        shown = ", ".join(f"{name} {accuracy[name]:.1f}" for name in suite.sequence)
        out.append(f"{len(inside)} of {TASKS_IN_BAND} tasks between 15 and 70 %: {shown}")
    out += [
        f"{name}: {accuracy[name]:.1f} %, under {PROBE:.0f}"
        for name in suite.general
        if accuracy[name] < PROBE
    ]
    for style, thinks in MODES.items():
        for name in ("science", "counting", "knowledge"):
            found = rows(suite, base, name, 40, style)
            share = sum(row["reply"].startswith("<think>") for row in found) / len(found)
            if abs(share - thinks) >= 0.05:
                out.append(f"{name}, asked {style}: {100 * share:.0f} % begin with a thought")
    return out


def main() -> None:
    """Check one folder."""
    found = unmet(open_suite("nano"), TransformersEngine(Path(sys.argv[1])))
    print("\n".join(found) or "meets all requirements")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
