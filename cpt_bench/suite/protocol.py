"""The protocol: everything that is equal for all methods, so that their numbers are comparable."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cpt_bench.suite.base import Declared

Style = str
"""A way of asking, by name: ``neutral``, ``direct`` or ``reasoning``."""


SPECIAL = re.compile(
    r"<\|[^\s<>|]{1,64}\|>"  # Qwen, Llama 3, Phi: <|image_pad|>, <|im_end|>
    r"|</?(?:image|video|audio|start_of_turn|end_of_turn|start_of_image|end_of_image"
    r"|image_soft_token|IMG_CONTEXT|fake_token_around_image)>"  # LLaVA, Gemma 3, InternVL, Idefics
)
"""Strings that the tokenizers of common model families read as one special token."""

MARK = "\u200b"
"""A zero-width space: in the middle of a special token, it makes the token plain text."""

_MARKED = re.compile(f"<{MARK}([^<>]*>)")


def as_words(text: str) -> str:
    """``text``, changed so that nothing in it is read as a special token.

    A data set or a reply may contain one: ``<|image_pad|>`` in a question would stand for a picture
    that does not exist. A zero-width space after the first character leaves it readable but makes
    it plain text.
    """
    return SPECIAL.sub(lambda found: f"{found[0][0]}{MARK}{found[0][1:]}", text)


def as_spelled(text: str) -> str:
    """``text`` as it was before :func:`as_words` changed it.

    A model that copies an option, or that learned a target, writes the zero-width space too.
    """

    def spelled(found: re.Match[str]) -> str:
        token = f"<{found[1]}"
        return token if SPECIAL.fullmatch(token) else found[0]

    return _MARKED.sub(spelled, text)


class AnswerForm(Declared):
    """How a reply must be written: patterns for the whole reply and for the answer in it.

    ``open`` and ``close`` surround the final answer; ``thought`` (open, close) may come before it.
    Without ``thought``, nothing may: the reply is the answer between its tags.

    Attributes:
        kind: ``tags``: the strict form, nothing but an optional thought and one answer. ``boxed``:
            the publication's: the last balanced box anywhere is the answer, and the form is judged
            separately. ``whole``: the entire reply is the answer. ``natural``: what follows the
            last 'answer is', else the last number, word or line, by the answer's kind; ``open`` and
            ``close`` are the sentence that the prompt asks for, judged separately.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"kind"})

    open: str = ""
    close: str = ""
    thought: tuple[str, str] = ("", "")
    kind: Literal["", "boxed", "natural", "whole"] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.thought[0]) != bool(self.thought[1]):
            raise ValueError("thought has one tag: give the opening and the closing one, or none")
        if self.kind == "whole" or (self.open and self.close):
            return self
        raise ValueError("open and close are needed, or kind: whole for a reply that is the answer")

    def holds_thought(self, reply: str) -> bool:
        """Whether the reply has a thought anywhere; never where the form has none."""
        return bool(self.thought[0]) and self.thought[0] in reply

    def begins_with_thought(self, reply: str) -> bool:
        """Whether the reply begins with a thought; never where the form has none."""
        return bool(self.thought[0]) and reply.lstrip().startswith(self.thought[0])


class Decoding(Declared):
    """Greedy decoding: no sampling, the same reply every time.

    Attributes:
        max_new_tokens: Maximal length of a reply.
        temperature: Above 0, one reply per question is sampled; 0 is greedy.
        top_p: Nucleus sampling, in (0, 1]; 0 turns it off.
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
    """What is equal for all methods: prompts, the form of an answer, decoding, reward.

    Attributes:
        prompts: Style to template; ``{question}`` is replaced.
        style: The style whose scores rank.
        form: The form of a reply.
        decoding: How replies are generated.
        reward: The weights of the reward for reinforcement trainers.
        general: When general benchmarks are measured.
        system: The system's turn before every question; empty leaves it to the chat template.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"system"})

    name: str
    prompts: dict[Style, str]
    style: Style
    form: AnswerForm
    decoding: Decoding
    reward: RewardWeights
    general: Literal["every-stage", "first-and-last"] = "every-stage"
    system: str = ""

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
        # Not str.format: a question may contain braces.
        template = self.prompts[style or self.style]
        return template.replace("{question}", as_words(question))

    def target(self, answer: str) -> str:
        """The training target for ``answer``: the answer alone, in the protocol's form."""
        return f"{self.form.open}{as_words(answer)}{self.form.close}"
