"""Text-only models: their tokenizer in the form that a processor of pictures and text has.

Engines and trainers speak to a processor: chats whose turns have parts, batches of text and
pictures. A text-only checkpoint has a tokenizer alone, and its chat template takes plain strings.
:class:`TextProcessor` is the little that lies between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from cpt_bench.errors import CptBenchError

INPUTS = ("input_ids", "attention_mask")
"""What a text-only model takes; some tokenizers return ``token_type_ids`` too."""


NO_TOKEN = -1
"""The id of no token."""


class TextProcessor(ProcessorMixin):  # type: ignore[misc]
    """A tokenizer that is called as a processor is, and saved as the tokenizer that it is.

    Args:
        tokenizer: The checkpoint's. Where it has no token to pad with, its end-of-text token pads;
            that is not saved.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        super().__init__(tokenizer, chat_template=tokenizer.chat_template)
        self.lent_padding = tokenizer.pad_token is None
        if self.lent_padding:
            tokenizer.pad_token = tokenizer.eos_token

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """Token ids and mask of ``text``, which is a chat that has its special tokens already.

        Raises:
            CptBenchError: There are pictures.
        """
        if images:
            raise no_pictures()
        found = self.tokenizer(text, **{"add_special_tokens": False, **kwargs})
        return BatchFeature({name: found[name] for name in INPUTS})

    def apply_chat_template(
        self, conversation: Any, chat_template: str | None = None, **kwargs: Any
    ) -> Any:
        """The tokenizer's, for turns that are strings or have parts.

        Raises:
            CptBenchError: A turn has a picture.
        """
        several = bool(conversation) and isinstance(conversation[0], list | tuple)
        chats = conversation if several else [conversation]
        plain = [[{**turn, "content": words(turn.get("content"))} for turn in c] for c in chats]
        template = chat_template or self.chat_template
        if not kwargs.pop("tokenize", False):
            texts = self.tokenizer.apply_chat_template(
                plain, chat_template=template, tokenize=False, **kwargs
            )
            return texts if several else texts[0]
        # Like every processor, a batch of one for one chat.
        found = self.tokenizer.apply_chat_template(
            plain, chat_template=template, **{**kwargs, "return_dict": True}
        )
        inputs = BatchFeature({name: found[name] for name in INPUTS})
        return inputs if kwargs.get("return_dict") else inputs["input_ids"]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Save the tokenizer, as it was loaded."""
        padding = self.tokenizer.pad_token
        if self.lent_padding:
            self.tokenizer.pad_token = None
            if (backend := getattr(self.tokenizer, "backend_tokenizer", None)) is not None:
                backend.no_padding()  # how it was last called is saved too, with the token
        try:
            return self.tokenizer.save_pretrained(save_directory, **kwargs)
        finally:
            self.tokenizer.pad_token = padding


@contextlib.contextmanager
def without_image_token(model: Any, processor: Any) -> Iterator[dict[str, Any]]:
    """Let TRL make a trainer of rollouts for a text-only model.

    It takes every processor for one of pictures, and asks the model's config for their token, so
    that rollouts never have it. Inside this context the config has one that no tokenizer writes.

    Yields:
        Arguments of TRL's configuration under which nothing is suppressed.
    """
    if not isinstance(processor, TextProcessor):
        yield {}
        return
    model.config.image_token_id = NO_TOKEN
    try:
        yield {"generation_kwargs": {"suppress_tokens": None}}
    finally:
        del model.config.image_token_id


def words(content: Any) -> Any:
    """The text of a turn that consists of parts; a turn that is plain text already stays.

    Raises:
        CptBenchError: A part is a picture.
    """
    if not isinstance(content, list | tuple):
        return content
    if any(part["type"] != "text" for part in content):
        raise no_pictures()
    return "".join(part["text"] for part in content)


def no_pictures() -> CptBenchError:
    """The error for a picture that a text-only model is shown."""
    return CptBenchError(
        "this model reads text alone, and the question has a picture",
        todo="Give a vision-language model as the base, or a suite without pictures",
    )
