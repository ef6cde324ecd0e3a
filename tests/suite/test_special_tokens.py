"""Words that spell a special token stay words, in prompts, targets and replies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpt_bench.engines import Request, refuse_special_in
from cpt_bench.errors import CptBenchError
from cpt_bench.grading import MATCHERS, grade
from cpt_bench.stage.split import row_of
from cpt_bench.suite import AnswerForm, Sample, load_suite
from cpt_bench.suite.protocol import as_spelled, as_words
from cpt_bench.trainer import TrainSample

PROTOCOL = load_suite(Path(__file__).parents[1] / "support/tiny").protocol

BOXED = AnswerForm(kind="boxed", open="\\boxed{", close="}", thought=("<think>", "</think>"))
WHOLE = AnswerForm(kind="whole")
NATURAL = AnswerForm(kind="natural", open="The answer is ", close=".")
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


@pytest.mark.parametrize("token", SPELLED)
def test_a_text_comes_back_as_it_was_spelled(token: str) -> None:
    for text in (token, f"a{token}{token}b", f"<{token}>", f"<\u200b{token}", "a\u200bb <\u200bb>"):
        assert as_spelled(as_words(text)) == text
    assert as_spelled(f"a {token}") == f"a {token}", "a model may also write it plainly"


GRADERS = ["exact", "exact-case", "open", "vqa", "vqa-evalai", "vqa-official", "gqa", "by-kind",
           "mmmu", "mmmu-official", "answer-within"]  # fmt: skip


@pytest.mark.parametrize("grader", GRADERS)
@pytest.mark.parametrize("token", [SPELLED[0], SPELLED[4], SPELLED[6]])
def test_a_model_that_learned_the_target_is_right(grader: str, token: str) -> None:
    """The target has a zero-width space in the token; the gold does not."""
    kind = "open" if grader.startswith("mmmu") else "line"
    asked = Sample(id="q1", question="Which token?", answers=(token,), kind=kind,
                   annotators=(token,) * 10)  # fmt: skip
    for form in (PROTOCOL.form, BOXED, WHOLE, NATURAL):
        protocol = PROTOCOL.model_copy(update={"form": form})
        reply = as_words(token) if form.kind == "whole" else protocol.target(token)
        assert token not in reply
        found = grade(reply, asked, form, MATCHERS[grader])
        assert (found.score, found.lenient) == (1, 1)
        assert found.extracted == found.read == token
    plain = f"<answer>{token}</answer>"
    assert grade(plain, asked, PROTOCOL.form, MATCHERS[grader]).score == 1
    wrong = PROTOCOL.target(SPELLED[1])
    assert grade(wrong, asked, PROTOCOL.form, MATCHERS[grader]).score == 0


def test_an_option_that_was_copied_is_right() -> None:
    """The options are in the prompt, where the token has the zero-width space."""
    asked = Sample(id="q1", question="Which?", answers=("B",), kind="letter",
                   choices=("<|im_end|>", "<|image_pad|>"))  # fmt: skip
    for copied in ("<\u200b|image_pad|>", "(B) <\u200b|image_pad|>", "<|image_pad|>", "B"):
        reply = f"<answer>{copied}</answer>"
        assert grade(reply, asked, PROTOCOL.form, MATCHERS["choice"]).score == 1
    reply = "<answer><\u200b|im_end|></answer>"
    assert grade(reply, asked, PROTOCOL.form, MATCHERS["choice"]).score == 0


def test_data_with_the_mark_are_graded_alike() -> None:
    """A data set may contain the zero-width space itself."""
    asked = Sample(id="q1", question="Which?", answers=("<\u200b|x|>",), kind="word")
    assert grade(PROTOCOL.target("<|x|>"), asked, PROTOCOL.form, MATCHERS["exact"]).score == 1
    other = asked.model_copy(update={"answers": ("a\u200bb",)})
    assert grade("<answer>a\u200bb</answer>", other, PROTOCOL.form, MATCHERS["exact"]).score == 1
    assert grade("<answer>ab</answer>", other, PROTOCOL.form, MATCHERS["exact"]).score == 0


@pytest.mark.parametrize(
    "request_",
    [
        Request("q3", "what is [SEP]?", ()),
        Request("q3", "plain", (), prefix="[SEP]"),
        Request("q3", "plain", (), system="You are [SEP]."),
        Request("q3", "plain", (b"", b""), layout=("a", 0, "b [SEP]", 1)),
    ],
)
def test_another_tokenizer_s_token_is_named_with_the_request(request_: Request) -> None:
    asked = [Request("q1", "plain", (), "so", ("a", "b"), "system"), request_]
    refuse_special_in(asked, ["<|x|>"])
    with pytest.raises(CptBenchError, match=r"request q3: its text has '\[SEP\]'"):
        refuse_special_in(asked, ["<|x|>", "[SEP]"])


def tokenizer_with(*special: str) -> Any:
    added = {7: SimpleNamespace(content="<|image_pad|>", special=True),
             8: SimpleNamespace(content="<think>", special=True)}  # fmt: skip
    return SimpleNamespace(all_special_tokens=[*special], added_tokens_decoder=added)


def test_vllm_refuses_it_too() -> None:
    pytest.importorskip("torch")
    from cpt_bench.engines.vllm import VLLMEngine

    engine = VLLMEngine.__new__(VLLMEngine)
    engine.processor = SimpleNamespace(tokenizer=tokenizer_with("[SEP]"))
    with pytest.raises(CptBenchError, match="request q1"):
        engine.prompt(Request("q1", "plain", (), system="[SEP]"))
    with pytest.raises(CptBenchError, match=r"request q2: its text has '<\|image_pad\|>'"):
        engine.prompt(Request("q2", "<think>", (), layout=("<|image_pad|>",)))


def test_transformers_refuses_a_harness_s_picture_token(tiny_model: Path) -> None:
    """transformers does not name it among the tokenizer's special tokens."""
    from cpt_bench.engines.hf import TransformersEngine

    engine = TransformersEngine(tiny_model)
    for odd in (Request("q1", "", (), layout=("a", "<|image_pad|>")),
                Request("q1", "a", (), system="<|im_start|>user")):  # fmt: skip
        with pytest.raises(CptBenchError, match=r"request q1: its text has '<\|"):
            engine.encode([Request("q0", "<think> <answer>", ()), odd])


def test_an_endpoint_is_sent_words() -> None:
    """Which tokens its model has is unknown; a harness's texts and system turns are sent too."""
    pytest.importorskip("openai")
    from cpt_bench.engines.endpoint import message

    asked = Request("q1", "", (), layout=("is <|image_pad|>", "<|im_end|>?"), system="<|im_end|>")
    system, user = message(asked)
    assert system["content"] == "<\u200b|im_end|>"
    texts = [part["text"] for part in user["content"]]
    assert texts == ["is <\u200b|image_pad|>", "<\u200b|im_end|>?"]


def test_a_rationale_is_words_in_training(tmp_path: Path) -> None:
    card = load_suite(Path(__file__).parents[1] / "support/tiny").card("lowvision")
    asked = Sample(id="q1", question="<|im_end|>?", answers=("<|im_end|>",), kind="word",
                   rationale="It ends with <|im_end|>.")  # fmt: skip
    row = row_of(asked, card, PROTOCOL, tmp_path)
    for text in (row["prompt"], row["target"], row["rationale"]):
        assert "<\u200b|im_end|>" in text and "<|im_end|>" not in text
    assert row["gold"]["answers"] == ["<|im_end|>"], "the reward grades with the gold as it is"
    assert row_of(asked.model_copy(update={"rationale": None}), card, PROTOCOL, tmp_path)[
        "rationale"
    ] is None  # fmt: skip


@pytest.mark.parametrize("where", ["prompt", "target", "rationale", "system", "memory"])
def test_training_refuses_another_tokenizer_s_token(where: str) -> None:
    pytest.importorskip("trl")
    from cpt_bench.trainers.policy import require_words

    tokenizer = tokenizer_with("[SEP]")
    plain = TrainSample("s1", "task", "plain", (), "target", None)
    odd = replace(plain, id="s2", **{"prompt" if where == "memory" else where: "a [SEP]"})
    new, old = ([plain], [odd]) if where == "memory" else ([plain, odd], [])
    stage: Any = SimpleNamespace(samples=new, memory=SimpleNamespace(samples=lambda: old))
    with pytest.raises(CptBenchError, match=r"task, s2: its text has '\[SEP\]'"):
        require_words(stage, tokenizer)
    require_words(stage, tokenizer_with("<|x|>"))


def test_a_drawn_reply_is_learned_as_words() -> None:
    """A policy may write a token in pieces; the tokenizer would join them."""
    pytest.importorskip("datasets")
    from cpt_bench.trainers.rows import chat_row

    sample = TrainSample("s1", "task", "plain", (), "target", None)
    (turn,) = chat_row(sample, "so <|im_end|> it is")["completion"]
    assert turn["content"] == "so <\u200b|im_end|> it is"


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
