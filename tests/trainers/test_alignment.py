"""Prompts, labels and rewards line up, on a tiny model: what is trained is what is graded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.engines import Request
from cpt_bench.engines.hf import messages
from cpt_bench.models.checkpoint import load_processor
from cpt_bench.sources import load_split
from cpt_bench.trainer import Stage, TrainSample
from tests.support.stages import TINY, make_stage

IGNORE = -100


@pytest.fixture
def sft_batch(tiny_model: Path, tmp_path: Path) -> tuple[dict[str, Any], Stage, Any]:
    """The very batch TRL's collator hands to the model."""
    from trl import SFTConfig, SFTTrainer

    from cpt_bench.trainers.policy import load
    from cpt_bench.trainers.rows import dataset
    from cpt_bench.trainers.sft import SFT

    stage = make_stage("counting", tiny_model, tmp_path)
    config = SFT.Config(learning_rate=1e-4, batch_size=8, device="cpu")
    model, processor = load(stage, config)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            **config.arguments(stage, Path(scratch), 8),
            per_device_train_batch_size=8, max_length=None, completion_only_loss=True,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            processing_class=processor,
            train_dataset=dataset(stage.samples, SFT(config).row),
        )
        examples = [trainer.train_dataset[i] for i in range(8)]
        return trainer.data_collator(examples), stage, processor


def test_the_loss_is_on_the_answer_and_its_end_alone(sft_batch: Any) -> None:
    batch, stage, processor = sft_batch
    for labels, ids, sample in zip(
        batch["labels"], batch["input_ids"], stage.samples, strict=False
    ):
        trained = labels[labels != IGNORE]
        text = processor.tokenizer.decode(trained).replace(" ", "")
        assert text == sample.target.replace(" ", "") + "<|im_end|>"
        first = int((labels != IGNORE).nonzero()[0])
        prompt = processor.tokenizer.decode(ids[:first], skip_special_tokens=True)
        assert sample.prompt.replace("?", " ?") in prompt
        assert sample.target not in prompt


def test_image_tokens_are_counted(sft_batch: Any) -> None:
    batch, _, processor = sft_batch
    per_sample = (batch["input_ids"] == processor.image_token_id).sum(dim=1)
    merged = batch["image_grid_thw"].prod(dim=1) // processor.image_processor.merge_size**2
    assert per_sample.tolist() == merged.tolist() == [16] * 8
    assert len(batch["pixel_values"]) == int(batch["image_grid_thw"].prod(dim=1).sum())


def test_training_and_evaluation_ask_in_the_same_words(sft_batch: Any, tiny_model: Path) -> None:
    batch, stage, _ = sft_batch
    processor = load_processor(tiny_model)
    sample = stage.samples[0]
    asked = processor.apply_chat_template(
        [messages(Request(sample.id, sample.prompt, sample.images))],
        tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
    )  # fmt: skip
    labels = batch["labels"][0]
    mask = batch["attention_mask"][0].bool()
    prompt = batch["input_ids"][0][mask & (labels == IGNORE)]
    assert prompt.tolist() == asked["input_ids"][0].tolist()
    pixels = len(asked["pixel_values"])
    assert (batch["pixel_values"][:pixels] - asked["pixel_values"]).abs().max() < 1e-6


@pytest.mark.parametrize("task", TINY.sequence)
def test_a_gold_answer_earns_one_and_a_wrong_one_does_not(task: str, tmp_path: Path) -> None:
    stage = make_stage(task, tmp_path, tmp_path)
    for sample, seen in zip(load_split(TINY.card(task), "train"), stage.samples, strict=True):
        assert sample.id == seen.id and sample.images == seen.images
        gold = stage.reward(seen, seen.target)
        assert (gold.total, gold.accuracy, gold.format_ok) == (1.0, 1.0, True)
        thoughtful = stage.reward(seen, f"<think>look</think>{seen.target}")
        assert thoughtful.total == 1.0
        wrong = stage.reward(seen, TINY.protocol.target("nothing of the kind"))
        assert (wrong.total, wrong.accuracy) == (pytest.approx(0.1), 0.0)
        assert stage.reward(seen, sample.answers[0]).total == 0.0  # right, but without the form


def test_rewards_meet_the_replies_they_belong_to(tiny_model: Path, tmp_path: Path) -> None:
    """In a real GRPO batch each completion is graded against its own prompt's gold."""
    from cpt_bench.trainers.rft import RFT

    seen: list[tuple[str, str, float]] = []
    stage = make_stage("science", tiny_model, tmp_path)
    prompt_of = {s.id: s.prompt for s in stage.samples}

    def spy(sample: TrainSample, reply: str) -> Any:
        parts = stage.reward(sample, reply)
        seen.append((sample.id, reply, parts.total))
        return parts

    from dataclasses import replace

    config = RFT.Config(
        learning_rate=1e-4, max_steps=1, prompts_per_step=4, rollouts=4, device="cpu"
    )
    RFT(config).train(replace(stage, reward=spy))
    assert len(seen) == 16
    for group in range(4):
        ids = {sample_id for sample_id, _, _ in seen[4 * group : 4 * group + 4]}
        assert len(ids) == 1 and ids <= prompt_of.keys()
