"""The protocol: what is the same for every method, so that their numbers can be compared."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cpt_bench.suite.origins import Declared

Style = str
"""A way of asking, by name: ``neutral``, ``direct`` or ``reasoning``."""


SPECIAL = re.compile(
    r"<\|[^\s<>|]{1,64}\|>"  # Qwen, Llama 3, Phi: <|image_pad|>, <|im_end|>
    r"|</?(?:image|video|audio|start_of_turn|end_of_turn|start_of_image|end_of_image"
    r"|image_soft_token|IMG_CONTEXT|fake_token_around_image)>"  # LLaVA, Gemma 3, InternVL, Idefics
)
"""What tokenizers of the families in use take for one special token."""


def as_words(text: str) -> str:
    """``text`` in which nothing is taken for a special token.

    Words of a data set, or of a reply, may spell one: ``<|image_pad|>`` in a question would be a
    picture that is not there. A zero-width space behind the first character leaves it readable and
    makes it plain words.
    """
    return SPECIAL.sub(lambda found: f"{found[0][0]}\u200b{found[0][1:]}", text)


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
        template = self.prompts[style or self.style]
        return template.replace("{question}", as_words(question))

    def target(self, answer: str) -> str:
        """What supervised training writes for ``answer``: the bare answer in its form."""
        return f"{self.form.open}{as_words(answer)}{self.form.close}"
