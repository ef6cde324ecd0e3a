"""Where in a reply the answer stands."""

from __future__ import annotations

import re

from cpt_bench.suite import AnswerForm

_MARKS = re.compile(r"([<>/])")
_BOX = "\\boxed{"


def read_form(reply: str, form: AnswerForm) -> str | None:
    """The answer of a reply that has the form exactly; None when it has not.

    The form is: at most one thought, then one answer, each closed, and nothing else but white
    space. A reply that answers twice has no form, so that hedging earns nothing.
    """
    text = reply.strip()
    think_open, think_close = form.thought
    if text.startswith(think_open):
        thought, closed, text = text[len(think_open) :].partition(think_close)
        if not closed or any(tag in thought for tag in (think_open, form.open, form.close)):
            return None
        text = text.strip()
    if not (text.startswith(form.open) and text.endswith(form.close)):
        return None
    if len(text) < len(form.open) + len(form.close):
        return None
    answer = text[len(form.open) : len(text) - len(form.close)].strip()
    # Written out: verifying an entry comes here a million times.
    twice = form.open in answer or form.close in answer
    return None if twice or think_open in answer or think_close in answer else answer


def read_freely(reply: str, form: AnswerForm) -> str | None:
    """The best reading of a reply without the form.

    What follows the last opening tag, else what follows the thought, else all of it, tags removed.
    The whole remainder is compared, never searched: a gold answer somewhere in a long reply is no
    answer, and 'no' is not found in 'unknown'.
    """
    text = reply
    for tag in (form.thought[1], form.open):
        _, found, after = text.rpartition(tag)
        text = after if found else text
    text = text.partition(form.close)[0]
    for tag in (*form.thought, form.open):
        text = text.replace(tag, " ")
    return text.strip() or None


def has_boxed_form(reply: str) -> bool:
    r"""The publication's form: a thought, then a box, with anything around (arXiv 2507.05386).

    ``<think>.*</think>.*\boxed\{.*\}.*`` on the whole reply, spaces around ``<``, ``>`` and ``/``
    dropped first. As a pattern that takes time that grows with a power of the reply's length.
    """
    pieces = _MARKS.split(reply)
    last = len(pieces) - 1
    stripped = (
        p if i % 2 else p.strip() if 0 < i < last else p.rstrip() if i < last else p.lstrip()
        for i, p in enumerate(pieces)
    )
    text = "".join(stripped) if last else reply
    if not text.startswith("<think>"):
        return False
    place = 0
    for mark in ("<think>", "</think>", _BOX, "}"):
        place = text.find(mark, place)
        if place < 0:
            return False
        place += len(mark)
    return True


def read_boxed(reply: str) -> str | None:
    r"""What is in the last ``\boxed{}``, braces balanced; None when none is closed."""
    start = reply.rfind(_BOX)
    if start < 0:
        return None
    depth, inside = 1, reply[start + len(_BOX) :]
    for i, character in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return inside[:i].strip()
    return None
