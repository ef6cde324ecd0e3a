"""The protocol: what is the same for every method, so that their numbers can be compared."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cpt_bench.suite.origins import Declared

Style = str
"""A way of asking, by name: ``neutral``, ``direct`` or ``reasoning``."""


class AnswerForm(Declared):
    """How a reply must be written: patterns for the whole reply and for the answer in it.

    ``open`` and ``close`` surround the final answer; ``thought`` (open, close) may come before it.

    Attributes:
        kind: ``tags``: the strict form, nothing but an optional thought and one answer. ``boxed``:
            the publication's: the last balanced box anywhere is the answer, the form is judged
            apart. ``whole``: all of the reply is the answer.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"kind"})

    open: str = ""
    close: str = ""
    thought: tuple[str, str] = ("", "")
    kind: Literal["", "boxed", "whole"] = ""


class Decoding(Declared):
    """Greedy decoding: no sampling, the same reply every time.

    Attributes:
        max_new_tokens: The longest reply.
        temperature: Above 0 the reply is sampled, one a question; 0 is greedy.
        top_p: Nucleus of the sampling, in (0, 1]; 0 leaves it whole.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"temperature", "top_p"})

    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=0.0, ge=0, le=1)


class RewardWeights(Declared):
    """The reward of a reply: ``accuracy`` x strict score + ``format`` x whether the form is met."""

    accuracy: float = Field(ge=0, le=1)
    format: float = Field(ge=0, le=1)


class Protocol(Declared):
    """What is the same for every method: prompts, the form of an answer, decoding, reward.

    Attributes:
        prompts: Style to template; ``{question}`` is replaced.
        style: The style whose scores rank.
        form: The form of a reply.
        decoding: How replies are made.
        reward: What reinforcement trainers are given.
        general: When general benchmarks are measured.
    """

    name: str
    prompts: dict[Style, str]
    style: Style
    form: AnswerForm
    decoding: Decoding
    reward: RewardWeights
    general: Literal["every-stage", "first-and-last"] = "every-stage"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.style not in self.prompts:
            raise ValueError(f"style {self.style!r} is not among prompts {sorted(self.prompts)}")
        for style, template in self.prompts.items():
            if "{question}" not in template:
                raise ValueError(f"prompts.{style} has no {{question}}")
        return self

    def prompt(self, question: str, style: Style | None = None) -> str:
        """The user's turn for ``question``, as text."""
        # Not str.format: a question may hold braces.
        return self.prompts[style or self.style].replace("{question}", question)

    def target(self, answer: str) -> str:
        """What supervised training writes for ``answer``: the bare answer in its form."""
        return f"{self.form.open}{answer}{self.form.close}"
