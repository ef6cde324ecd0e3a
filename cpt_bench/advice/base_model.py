"""A suite and a base model: do prompts fit its context, and can a change of its answers be seen?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cpt_bench.advice.again import Finding
from cpt_bench.advice.suites import SIDES
from cpt_bench.engines import Request
from cpt_bench.engines.hf import messages
from cpt_bench.files import read_json
from cpt_bench.images import decode
from cpt_bench.models.checkpoint import load_processor
from cpt_bench.run import sequencer
from cpt_bench.run.request import Elsewhere, plan_of
from cpt_bench.run.request import Request as Asked
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite, TaskCard, open_suite

LONGEST, ASKED = 3, 32
"""Prompts of each split that are encoded, those with most characters; and questions of each task
that the model is asked."""


def check_with(
    spec: str,
    base: Path,
    *,
    limit: int = ASKED,
    tell: Callable[[dict[str, Any]], None] = lambda event: None,
) -> list[Finding]:
    """What can only be found out with the model that a suite starts from.

    Args:
        spec: The suite, in order otherwise.
        base: The model's folder.
        limit: Questions of each task to ask it.
        tell: Receives the evaluation's events.

    Raises:
        CptBenchError: The model cannot be loaded, or the evaluation fails.
    """
    suite = open_suite(spec)
    return [*_context(suite, base), *_zero_shot(suite, spec, base, limit, tell)]


def _context(suite: Suite, base: Path) -> Iterator[Finding]:
    """The longest prompts with the longest reply must fit."""
    config = read_json(base / "config.json") if (base / "config.json").is_file() else {}
    within = config.get("text_config") or config
    room = within.get("max_position_embeddings")
    if not isinstance(room, int):
        what = "its config.json gives no max_position_embeddings: lengths were not compared"
        yield Finding(str(base.name), None, what)
        return
    processor = load_processor(base)
    reply = suite.protocol.decoding.max_new_tokens
    most = (0, "")
    for name in (*suite.sequence, *suite.general):
        for split in suite.card(name).splits:
            for length, sample in _lengths(suite, suite.card(name), split, processor):
                most = max(most, (length, f"{name}/{split}, {sample}"))
    what = f"the longest prompt found has {most[0]} tokens ({most[1]}); with a reply of {reply}"
    if most[0] + reply > room:
        cure = "Leave long rows out with source.where, show smaller pictures, or shorten the reply"
        yield Finding(suite.name, False, f"{what} it does not fit into {room}", cure)
    else:
        yield Finding(suite.name, True, f"{what} it fits into {room}")
    for name in suite.sequence:
        yield from _targets(suite, suite.card(name), processor)


def _lengths(suite: Suite, card: TaskCard, split: str, processor: Any) -> Iterator[tuple[int, str]]:
    samples = load_split(card, split)
    for sample in sorted(samples, key=lambda s: -len(s.question))[:LONGEST]:
        request = Request(sample.id, suite.protocol.prompt(sample.question), sample.images)
        text = processor.apply_chat_template(messages(request), add_generation_prompt=True)
        pictures = [decode(image, sample.id) for image in sample.images]
        given = {"images": pictures} if pictures else {}
        encoded = processor(text=[text], **given)
        yield len(encoded["input_ids"][0]), sample.id


def _targets(suite: Suite, card: TaskCard, processor: Any) -> Iterator[Finding]:
    """A gold answer in its form must fit into the longest reply."""
    longest = max(load_split(card, "test"), key=lambda s: len(s.answers[0]))
    target = suite.protocol.target(longest.answers[0])
    needed = len(processor.tokenizer(target)["input_ids"]) + 1
    most = suite.protocol.decoding.max_new_tokens
    if needed > most:
        what = f"{longest.id}: its gold answer takes {needed} tokens, a reply has at most {most}"
        cure = f"Raise protocol.decoding.max_new_tokens to {needed} or more"
        yield Finding(f"{card.name}/test", False, what, cure)


def _zero_shot(
    suite: Suite, spec: str, base: Path, limit: int, tell: Callable[[dict[str, Any]], None]
) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        request = Asked(suite=spec, limit=limit, out=out, elsewhere=Elsewhere(model=str(base)))
        scores, _ = sequencer.run(plan_of(request), out, None, tell)
    low, high = SIDES
    for name in suite.sequence:
        found = scores.outcomes[name]
        strict, best = (100 * float(x[0].mean()) for x in (found.strict, found.lenient))
        formed, n = 100 * float(found.format_ok[0].mean()), found.strict.shape[1]
        beside = f"best reading {best:.0f} %, in form {formed:.0f} %"
        what = f"{base.name} scores {strict:.0f} % on {n} questions ({beside})"
        if strict <= low and best > low:
            cure = "It knows more than it may show: choose a form that it meets, or name it clearly"
            yield Finding(name, None, f"{what}: it does not meet the form", cure)
        elif strict <= low:
            cure = "Choose easier questions, or expect to see learning only"
            yield Finding(name, None, f"{what}: the floor, from which nothing can be lost", cure)
        elif strict >= high:
            cure = "Choose harder questions: there is nothing to learn, though much to lose"
            yield Finding(name, None, f"{what}: the ceiling", cure)
        else:
            yield Finding(name, True, what)
