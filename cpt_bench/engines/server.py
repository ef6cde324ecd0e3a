"""How a server behind a URL identifies itself: which program it is, and which model it serves.

A chat completion identifies its model only by a name, and servers are restarted. So the server's
description of itself is stored with its answers, and must not change later. The program matters
because some apply the checkpoint's own sampling settings wherever a request sets none: with
Qwen2.5-VL's repetition penalty, greedy is not greedy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import whole_characters

NEUTRAL: dict[str, dict[str, Any]] = {
    "vllm": {"repetition_penalty": 1.0, "min_p": 0.0, "top_k": -1},
    "sglang": {"repetition_penalty": 1.0, "min_p": 0.0, "top_k": -1},
}
"""Program to the extra request fields that override a checkpoint's own sampling settings."""

COMPARED = ("model", "root")
"""What must not change between answers: the model's name in the reply, the path of its weights."""

Known = dict[str, set[str]]


class Server:
    """What is known about one server.

    Args:
        url: Its address, for messages.
        model: The name of the requested model.
        known: What is known from earlier answers, by field.
        keep: Called with field and value when the server gives a new value.

    Attributes:
        served: Values by field: ``model``, ``system_fingerprint`` and unusual values of
            ``finish_reason`` of the replies, ``root`` and ``owned_by`` of the list of models.
        warnings: Lines to show with the results.
    """

    def __init__(
        self, url: str, model: str, known: Known, keep: Callable[[str, str], None]
    ) -> None:
        self.url, self.model, self.keep = url, model, keep
        self.served: Known = {field: set(values) for field, values in known.items()}
        self.warnings: list[str] = []
        self.lock = threading.Lock()
        self._met = self._unknown = False

    def meet(self, client: Any) -> None:
        """Request the list of models, once; a server without one stays unknown.

        Raises:
            CptBenchError: It serves that name from another path than before.
        """
        if self._met:
            return
        self._met = True
        self._look(client)

    def _look(self, client: Any) -> None:
        import openai

        try:
            try:
                listed = client.with_options(max_retries=0).models.list()
            except openai.APIConnectionError:
                listed = client.models.list()  # unreachable: the client retries with back-off
            found = next((m for m in listed.data if m.id == self.model), None)
        except (openai.OpenAIError, ValueError, RecursionError, AttributeError, TypeError):
            return
        for field in ("root", "owned_by"):
            self.note(field, getattr(found, field, None))

    def heard(self, answer: Any, client: Any) -> None:
        """Record what a reply reveals about its server.

        Raises:
            CptBenchError: Another model has answered the same evaluation.
        """
        before = len(self.served.get("system_fingerprint", ()))
        for field in ("model", "system_fingerprint"):
            self.note(field, getattr(answer, field, None))
        if before and len(self.served["system_fingerprint"]) > before:
            self._look(client)  # it was restarted: are the weights still the same?
        with self.lock:
            if not self.program and not self._unknown:
                self._unknown = True
                self.warnings.append(
                    f"{self.url}: whether this server applies sampling settings of its own, or of "
                    "the checkpoint (a repetition penalty), is unknown"
                )

    def ended(self, given: object, taken: str) -> None:
        """Keep, once, an odd word for why a reply ended."""
        word = whole_characters(str(given if given is not None else "null")) or "empty"
        if word in self.served.get("finish_reason", ()):
            return
        self.note("finish_reason", word)
        line = f"{self.url}: replies end with finish_reason {given!r}, taken for {taken!r}"
        with self.lock:
            if line not in self.warnings:
                self.warnings.append(line)

    def note(self, field: str, value: object) -> None:
        """Add a value that the server gave for ``field``; empty values are ignored."""
        if not isinstance(value, str) or not value:
            return
        value = whole_characters(value)
        with self.lock:
            seen = self.served.setdefault(field, set())
            if value in seen:
                return
            if seen and field in COMPARED:
                names = " and ".join(sorted({*seen, value}))
                raise CptBenchError(
                    f"two models answered one evaluation: {names}",
                    where=self.url,
                    todo="Serve the first one again, or evaluate into another --out",
                )
            seen.add(value)
            self.keep(field, value)

    @property
    def program(self) -> str:
        """``vllm`` or ``sglang``, by the model's owner or the replies' system fingerprint."""
        marks = {*self.served.get("owned_by", ()), *self.served.get("system_fingerprint", ())}
        return next((name for name in NEUTRAL if any(m.startswith(name) for m in marks)), "")

    def neutral(self) -> dict[str, Any]:
        """The fields that override a checkpoint's sampling settings, if known."""
        return NEUTRAL.get(self.program, {})
