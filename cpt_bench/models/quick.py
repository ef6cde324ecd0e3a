"""The quick path: models that this package computes itself, in less time than transformers.

This is the one place that knows which models those are. Engines and trainers ask :func:`of`, and
use transformers' ``generate`` and TRL's losses where it returns None. Numbers are the same either
way, up to rounding. Without :mod:`cpt_bench.models.qwen_cpu` and :mod:`cpt_bench.models.text_cpu`
everything runs, more slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

PICTURES = ("qwen2_5_vl", "Qwen2_5_VLProcessor")
TEXT = ("llama", "qwen2", "qwen3")
"""The ``model_type`` of a model's config, or the class of its processor."""


class Scores(Protocol):
    """How likely a model finds given replies, token by token; 0 after their ends.

    Attributes:
        logps: Log-probability of each token, in nats (rows, length).
        entropies: Entropy of the distribution at each token, in nats.
        likeliest: Whether each token was the most likely one.
    """

    @property
    def logps(self) -> torch.Tensor: ...
    @property
    def entropies(self) -> torch.Tensor: ...
    @property
    def likeliest(self) -> torch.Tensor: ...


class Reading(Protocol):
    """Prompts that a model has read, one in each row; replies to them continue from here."""

    def rows(self, which: torch.Tensor) -> Reading:
        """The prompts with the numbers ``which``; a number may be repeated or left out."""
        ...

    def write(
        self,
        most: int,
        *,
        temperature: float,
        top_p: float = 1.0,
        ends: Sequence[int],
        padding: int,
        never: Sequence[int] = (),
        watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Write a reply to each prompt.

        Args:
            most: The most tokens of a reply.
            temperature: Divides the logits; 0 always takes the likeliest token.
            top_p: Nucleus, in (0, 1].
            ends: Tokens that end a reply.
            padding: Fills the rows after their ends.
            never: Tokens that no reply has.
            watch: Called before each token with the rows that go on (rows,) and their logits
                (rows, words).

        Returns:
            Token ids (rows, ``most``), ends included.
        """
        ...

    def score(self, replies: torch.Tensor, mask: torch.Tensor, temperature: float) -> Scores:
        """How likely given replies are, with gradients to the model and to the reading.

        Args:
            replies: Token ids (rows, length), padded on the right.
            mask: 1 for a token of the reply (rows, length).
            temperature: Divides the logits.
        """
        ...


class QuickModel(Protocol):
    """A model that reads a prompt once, whatever is asked about it."""

    def read(self, inputs: dict[str, torch.Tensor]) -> Reading:
        """Read prompts as the processor encodes them, padded on the left."""
        ...

    def score_answers(self, inputs: dict[str, torch.Tensor], length: int) -> Scores:
        """How likely the answers are that follow their prompts in ``inputs``, at temperature 1.

        Args:
            inputs: Prompts padded on the left, then answers padded on the right.
            length: How many columns the answers take.
        """
        ...


def of(model: Any) -> QuickModel | None:
    """The quick path of a transformers model; None where transformers has to compute it."""
    package = package_for(getattr(getattr(model, "config", None), "model_type", None))
    return None if package is None else package.quick_model(model)


def arrange(model: Any) -> Any:
    """The same model, its layers replaced by quicker ones where there are any."""
    package = package_for(model.config.model_type)
    return model if package is None else package.arrange_model(model)


def arrange_processor(processor: Any) -> Any:
    """The same processor, its methods replaced by quicker ones where there are any."""
    package = package_for(type(processor).__name__)
    return processor if package is None else package.arrange_processor(processor)


def package_for(kind: str | None) -> ModuleType | None:
    """The code for a model of this type or a processor of this class; None where there is none."""
    try:
        # Here, because they import torch, which is not needed to compute digests.
        if kind in PICTURES:
            from cpt_bench.models.qwen_cpu import path

            return path
        if kind in TEXT:
            import cpt_bench.models.text_cpu as text

            return text
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("cpt_bench.models."):
            raise
    return None
