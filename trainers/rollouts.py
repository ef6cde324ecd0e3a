"""Replies of a policy in training, outside TRL's loop: to filter prompts, to write own targets."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine, choosing
from cpt_bench.errors import CptBenchError
from cpt_bench.models.qwen_cpu import decoding
from cpt_bench.trainer import RewardParts, Stage, TrainSample
from cpt_bench.trainers.common import TRLConfig, chat_row, processes, training_processor

T = TypeVar("T")

RIGHT = 0.5
"""A reply whose accuracy is above this is right; matters for graded scores alone."""

PROMPTS = 64
"""Prompts that are asked at a time; each may be answered several times at once."""


class Rollouts(TransformersEngine):
    """A model in memory as an engine that answers each prompt several times.

    Args:
        model: The transformers model; it is left in the mode it was in.
        stage: Says how long a reply may be; its start checkpoint has the processor.
        config: Says how large pictures are.
        begin: How every reply begins.
    """

    def __init__(self, model: Any, stage: Stage, config: TRLConfig, begin: str = "") -> None:
        self.weights = ""  # they change under training; nothing is recorded by them
        self.processor = training_processor(stage, config)
        self.processor.tokenizer.padding_side = "left"
        self.model, self.stage, self.begin = model, stage, begin
        self.batch_size = PROMPTS
        self.stops()

    def draw(
        self,
        samples: Sequence[TrainSample],
        replies: int,
        *,
        seed: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[list[str]]:
        """``replies`` texts to each sample's prompt, in the order of ``samples``."""
        order = sorted(range(len(samples)), key=lambda i: (len(samples[i].images), i))
        found: dict[int, list[str]] = {}
        training = self.model.training
        self.model.eval()
        # A state of its own: what the stage draws later must not depend on how much was asked.
        with torch.random.fork_rng(devices=_devices()):
            torch.manual_seed(seed)
            while order:
                images = len(samples[order[0]].image_files)
                same = [i for i in order[:PROMPTS] if len(samples[i].image_files) == images]
                order = order[len(same) :]
                texts = self._several([samples[i] for i in same], replies, temperature, top_p)
                found |= dict(zip(same, texts, strict=True))
        self.model.train(training)
        return [found[i] for i in range(len(samples))]

    def _several(
        self, samples: Sequence[TrainSample], replies: int, temperature: float, top_p: float
    ) -> list[list[str]]:
        inputs = self.encode([Request(s.id, s.prompt, s.images, self.begin) for s in samples])
        most = self.stage.max_new_tokens
        with torch.no_grad():
            if decoding.fits(self.model):
                each = torch.arange(len(samples)).repeat_interleave(replies)
                prefix = decoding.read(self.model, inputs).rows(each)
                pick = decoding.sampler(temperature, top_p)
                new = decoding.decode(self.model, prefix, most, pick, self.ends, self.padding)
            else:
                output = self.model.generate(
                    **inputs,
                    max_new_tokens=most,
                    num_return_sequences=replies,
                    use_cache=True,
                    **choosing(temperature, top_p),
                )
                new = output[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        whole = [(self.begin + text).strip() for text in texts]
        return [whole[i : i + replies] for i in range(0, len(whole), replies)]


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


def encoded(processor: Any) -> Callable[[Sequence[tuple[TrainSample, str]]], dict[str, Any]]:
    """What turns samples and replies to them into a batch with ``labels`` on the replies alone."""
    collator = DataCollatorForVisionLanguageModeling(
        processor, max_length=None, completion_only_loss=True
    )

    def collate(pairs: Sequence[tuple[TrainSample, str]]) -> dict[str, Any]:
        return dict(collator([chat_row(s, reply) for s, reply in pairs]))

    return collate


def losses(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each reply token's negative log-probability in nats, and where they are (rows, columns).

    Args:
        model: Only the replies' columns pass through its head: a row's logits take a gigabyte.
        batch: What :func:`encoded` makes.
    """
    batch = {key: value.to(model.device) for key, value in batch.items()}
    labels = batch.pop("labels")
    begin = max(1, int((labels != -100).any(dim=0).int().argmax()))
    keep = labels.shape[1] - begin + 1
    logits = model(**batch, use_cache=False, logits_to_keep=keep).logits[:, :-1].float()
    labels = labels[:, begin:]
    token = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, ignore_index=-100, reduction="none"
    )
    return token, labels != -100


class Sifted(NamedTuple):
    """What was kept, and how many prompts were asked for it."""

    kept: list[Any]
    asked: int


def sift(
    samples: Sequence[TrainSample],
    look: Callable[[Sequence[TrainSample]], list[T]],
    *,
    wanted: int | None,
    allowed: int | None,
    seed: int,
) -> Sifted:
    """Ask prompts in a random order until enough is kept.

    A stage that draws 320 prompts needs 320 that pass, not all 2,400 judged: the first ones of a
    random order that pass are a uniform draw from all that would.

    Args:
        samples: The prompts.
        look: Judges some of them; returns what is kept.
        wanted: How much to keep; None asks all.
        allowed: The most prompts to ask; None is no limit.
        seed: Of the order.
    """
    order = random.Random(seed).sample(list(samples), len(samples))[:allowed]
    kept: list[T] = []
    asked = 0
    while asked < len(order) and (wanted is None or len(kept) < wanted):
        block = order[asked : asked + PROMPTS]
        kept += look(block)
        asked += len(block)
    return Sifted(kept if wanted is None else kept[:wanted], asked)


def graded(
    stage: Stage, samples: Sequence[TrainSample], replies: Sequence[Sequence[str]]
) -> list[list[RewardParts]]:
    """The reward of each reply."""
    return [
        [stage.reward(sample, text) for text in texts]
        for sample, texts in zip(samples, replies, strict=True)
    ]


def one_process(method: str) -> None:
    """Refuse several processes, each of which would draw replies of its own.

    Raises:
        CptBenchError: There are several.
    """
    if processes() > 1:
        raise CptBenchError(
            f"{method} draws replies before it trains, in one process",
            todo="Run it without --launch, with lora_rank where the model needs several GPUs",
        )
