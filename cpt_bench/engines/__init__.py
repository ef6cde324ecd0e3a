"""Engines: prompts with images to greedy replies, always tied to a digest of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Request(NamedTuple):
    """One question to a model.

    Attributes:
        id: The sample it is from.
        prompt: The user's words.
        images: Encoded images, shown before the words.
        prefix: How the reply must begin; the model goes on from there, and the reply's text begins
            with it. An engine that cannot do so refuses.
    """

    id: str
    prompt: str
    images: Sequence[bytes]
    prefix: str = ""


class Reply(NamedTuple):
    """What a model wrote: text without special tokens, and the number of tokens."""

    text: str
    tokens: int


class Engine(Protocol):
    """Something that answers.

    Attributes:
        weights: SHA-256 of the weights that answer. Results are keyed by it: harnesses that cache
            by name or path return the last stage's answers for this one.
    """

    weights: str

    def generate(
        self,
        requests: Sequence[Request],
        max_new_tokens: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Reply]:
        """Greedy replies, in the order of ``requests``; ``progress`` is told how many are done."""
        ...
