"""Finds the answer in a reply, and removes the markup around it."""

from __future__ import annotations

import re

from cpt_bench.suite import AnswerForm

TAGS = AnswerForm(open="<answer>", close="</answer>", thought=("<think>", "</think>"))
"""The usual tags, for forms that have none: the best reading removes them."""

_MARKS = re.compile(r"([<>/])")
_BOX = "\\boxed{"


def read_form(reply: str, form: AnswerForm) -> str | None:
    """The answer of a reply that has exactly the required form; else None.

    The form is: at most one thought, then one answer, each closed, and otherwise only white space.
    A reply with two answers does not have the form, so that hedging earns nothing.
    """
    text = reply.strip()
    think_open, think_close = form.thought
    if think_open and text.startswith(think_open):
        thought, closed, text = text[len(think_open) :].partition(think_close)
        if not closed or any(tag in thought for tag in (think_open, form.open, form.close)):
            return None
        text = text.strip()
    if not (text.startswith(form.open) and text.endswith(form.close)):
        return None
    if len(text) < len(form.open) + len(form.close):
        return None
    answer = text[len(form.open) : len(text) - len(form.close)].strip()
    # Inlined for speed: verifying an entry calls this a million times.
    twice = form.open in answer or form.close in answer
    if think_open:
        twice = twice or think_open in answer or think_close in answer
    return None if twice else answer


def read_freely(reply: str, form: AnswerForm) -> str | None:
    """The best reading of a reply without the form.

    The text after the last opening tag, else after the thought, else all of it, without tags. The
    whole remainder is compared, never searched: a gold answer somewhere in a long reply does not
    count, and 'no' is not found in 'unknown'.
    """
    text = reply
    for tag in filter(None, (form.thought[1], form.open)):
        _, found, after = text.rpartition(tag)
        text = after if found else text
    text = text.partition(form.close)[0] if form.close else text
    for tag in filter(None, (*form.thought, form.open)):
        text = text.replace(tag, " ")
    return text.strip() or None


# What may stand around an answer without being part of it: Markdown, LaTeX, quotation marks.
_EMPHASIS = re.compile(r"(?P<mark>\*{1,3}|_{1,3}|`{1,3})(?P<inside>.+)(?P=mark)", re.DOTALL)
_FENCE = re.compile(r"```\w*\n(?P<inside>.*)```", re.DOTALL)
_LINE_MARK = re.compile(r"(?:#{1,6}|[*•])\s+(?P<inside>.+)", re.DOTALL)
_COMMAND = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|emph|mathrm|mathbf|mathit|mathsf|operatorname)\s*\{"
)
_PAIRS = (
    *(("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")),
    *(('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("«", "»")),
)
_DRESS = re.compile(r"[*_`#•\\$\"'\u201c\u2018«]")


_LAYERS = 8
"""Maximal number of layers of markup to remove: \\(\\boxed{\\text{**B**}}\\). has four."""


def undress(answer: str, boxes: bool = True) -> str:
    r"""``answer`` without markup: ``**B**``, ``\boxed{42}``, ``$42$`` → B, 42, 42.

    Words are never removed: 'not **B**' stays as it is.

    Args:
        answer: The entire text in the answer's place.
        boxes: Whether the last box among other words is the answer: a box marks it like tags.
    """
    text = answer.strip()
    for _ in range(_LAYERS):
        inside = _inside(text) if _DRESS.search(text) else text
        if inside is None and text.endswith("."):
            inside = _inside(text[:-1].rstrip())
        if inside is None and boxes:
            inside = read_boxed(text)
        if inside is None or inside == text:
            break
        text = inside.strip()
    return text


def is_thinking(reply: str, form: AnswerForm) -> bool:
    """Whether the reply ends inside its thought, where a box is not the answer."""
    opening, closing = form.thought
    return bool(opening) and reply.rfind(opening) > reply.rfind(closing)


def _inside(text: str) -> str | None:
    """The text inside one layer of markup; None if no markup surrounds the entire ``text``."""
    for pattern in (_FENCE, _EMPHASIS, _LINE_MARK):
        found = pattern.fullmatch(text)
        if found and not (pattern is _EMPHASIS and found["mark"] in found["inside"]):
            return found["inside"]
    for opening, closing in _PAIRS:
        inside = text[len(opening) : -len(closing)]
        whole = len(text) > len(opening) + len(closing) - 1
        if whole and text.startswith(opening) and text.endswith(closing):
            return inside if opening not in inside and closing not in inside else None
    command = _COMMAND.match(text)
    if command and (end := _closing(text, command.end())) == len(text) - 1:
        return text[command.end() : end]
    return None


def _closing(text: str, start: int) -> int:
    """The index of the brace that closes the one before ``start``; -1 if there is none."""
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return -1


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
    r"""The content of the last ``\boxed{}`` with balanced braces; None if none is closed."""
    start = reply.rfind(_BOX)
    if start < 0:
        return None
    end = _closing(reply, start + len(_BOX))
    return None if end < 0 else reply[start + len(_BOX) : end].strip()
