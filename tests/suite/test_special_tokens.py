"""Words that spell a special token stay words, in prompts, targets and replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpt_bench.engines import Request, refuse_special
from cpt_bench.errors import CptBenchError
from cpt_bench.suite import load_suite
from cpt_bench.suite.protocol import as_words

PROTOCOL = load_suite(Path(__file__).parents[1] / "support/tiny").protocol

SPELLED = ["<|image_pad|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|eot_id|>",
           "<image>", "<video>", "<start_of_turn>", "<image_soft_token>", "<IMG_CONTEXT>"]  # fmt: skip


@pytest.mark.parametrize("token", SPELLED)
def test_a_token_in_a_question_is_words(token: str) -> None:
    for text in (
        PROTOCOL.prompt(f"What does {token} stand for?"),
        PROTOCOL.target(token),
        as_words(f"a{token}{token}b"),
    ):
        assert token not in text
        assert token in text.replace("\u200b", ""), "what a person reads is the same"


@pytest.mark.parametrize(
    "text", ["a < b | c > d", "<answer>", "<think>", "x <| y", "<|a b|>", "<b>"]
)
def test_other_words_stay_as_they_are(text: str) -> None:
    assert as_words(text) == text


def test_another_tokenizer_s_token_is_named_with_the_request() -> None:
    asked = [Request("q1", "plain", ()), Request("q2", "what is [SEP]?", ())]
    refuse_special(asked, ["<|x|>"])
    with pytest.raises(CptBenchError, match=r"request q2: its text has '\[SEP\]'"):
        refuse_special(asked, ["[SEP]"])
    with pytest.raises(CptBenchError, match="request q3"):
        refuse_special([Request("q3", "plain", (), prefix="[SEP]")], ["[SEP]"])


def test_the_tokens_of_a_picture_are_those_of_the_pictures(tiny_model: Path) -> None:
    """A question that spells an image token has as many image tokens as its pictures give it."""
    from cpt_bench.engines.hf import TransformersEngine
    from cpt_bench.sources import load_split

    suite = load_suite(Path(__file__).parents[1] / "support/tiny")
    sample = next(s for s in load_split(suite.card("lowvision"), "test") if s.images)
    engine = TransformersEngine(tiny_model)

    def image_tokens(question: str) -> int:
        request = Request(sample.id, suite.protocol.prompt(question), sample.images)
        encoded: Any = engine.encode([request])
        return int((encoded["input_ids"] == engine.processor.image_token_id).sum())

    assert image_tokens("What is <|image_pad|>?") == image_tokens("What is it?") > 0
