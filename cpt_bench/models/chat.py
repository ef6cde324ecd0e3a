"""The text that a checkpoint's chat template puts around a question, its pictures and the reply.

A framework with templates of its own trains on the prompts that are evaluated only if its template
gives the same text, token by token. So the parts of that text are written into ``stage.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cpt_bench.models import families

WORDS, REPLY = "question words", "reply words"


class Chat(BaseModel):
    """A prompt is ``before``, then ``image`` for each picture, the words, and ``after``.

    Attributes:
        before: The text before the pictures and words of a question.
        image: The text of one picture, with one image token; processors repeat that token.
        after: The text from the end of the question to the beginning of the reply.
        end: The text that ends a reply.
        image_token: The token in ``image`` that stands for the picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: str
    image: str
    after: str
    end: str
    image_token: str


def chat_of(folder: Path, system: str = "") -> Chat | None:
    """The parts of a checkpoint's chat; None where its template does not consist of them.

    Args:
        folder: The checkpoint.
        system: The system's turn before every question; empty leaves it to the template.
    """
    # Here, because it imports transformers; and without models.checkpoint, which stands for all
    # that evaluates a model: a command does not train again because the decoder was edited.
    from cpt_bench.models.processor import install

    install()
    processor = families.open_processor(folder)
    first = [_turn("system", system)] if system else []
    tokenizer = getattr(processor, "tokenizer", processor)
    before, _, after = _prompt(processor, first, 0).partition(WORDS)
    image = ""
    if families.reads_pictures(families.kind_of(folder)):
        one = _prompt(processor, first, 1)
        if not one.startswith(before) or not one.endswith(WORDS + after):
            return None
        image = one.removeprefix(before).removesuffix(WORDS + after)
        if _prompt(processor, first, 2) != before + 2 * image + WORDS + after:
            return None
    end = tokenizer.eos_token
    whole = _render(processor, [*first, *_question(0), _turn("assistant", REPLY)], False)
    if not whole.startswith(before + WORDS + after + REPLY + end):
        return None
    token = getattr(processor, "image_token", "") if image else ""
    return Chat(before=before, image=image, after=after, end=end, image_token=token)


def _question(pictures: int) -> list[dict[str, Any]]:
    turn = _turn("user", WORDS)
    turn["content"] = [*[{"type": "image"}] * pictures, *turn["content"]]
    return [turn]


def _turn(role: str, words: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": words}]}


def _prompt(processor: Any, first: list[dict[str, Any]], pictures: int) -> str:
    return _render(processor, [*first, *_question(pictures)], True)


def _render(processor: Any, turns: list[dict[str, Any]], open_reply: bool) -> str:
    text: str = processor.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=open_reply
    )
    return text
