"""Replies of a policy in training, outside TRL's loop: to filter prompts or to learn from them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from cpt_bench.engines import Request, Sampling
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.errors import CptBenchError
from cpt_bench.models import batches
from cpt_bench.models.families import pictures
from cpt_bench.trainer import RewardParts, Stage, TrainSample
from cpt_bench.trainers.config import TRLConfig, processes
from cpt_bench.trainers.policy import evaluating, training_processor
from cpt_bench.trainers.rows import chat_row

T = TypeVar("T")

RIGHT = 0.5
"""A reply is right if its accuracy is above this; it matters only where scores have degrees."""

PROMPTS = 64
"""Prompts in a batch; each may be answered several times at once."""


class Rollouts(TransformersEngine):
    """A model in memory as an engine that answers each prompt several times.

    Args:
        model: The transformers model; its mode, training or evaluation, is restored.
        stage: Limits the length of a reply; the processor is that of its start checkpoint.
        config: Sets how large pictures are.
        begin: How every reply begins.
    """

    def __init__(self, model: Any, stage: Stage, config: TRLConfig, begin: str = "") -> None:
        self.weights = ""  # training changes them; no result is stored under their digest
        self.processor = training_processor(stage, config)
        self.processor.tokenizer.padding_side = "left"
        self.model, self.stage, self.begin = model, stage, begin
        self.batch_size = PROMPTS
        self.stops()
        # As in TRL's rollouts; and without it, the text would not be all that was drawn.
        token = pictures.token_of(model)
        self.never = [] if token is None else [token]

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
        found: dict[int, list[str]] = {}
        shown = [len(sample.image_files) for sample in samples]
        # A random state of its own: the stage's own draws must not depend on how much was asked.
        with evaluating(self.model), torch.random.fork_rng(devices=_devices()):
            torch.manual_seed(seed)
            for batch in batches.of_equal_pictures(shown, [0] * len(samples), PROMPTS):
                texts = self._several(
                    [samples[i] for i in batch], replies, Sampling(temperature, top_p)
                )
                found |= dict(zip(batch, texts, strict=True))
        return [found[i] for i in range(len(samples))]

    def _several(
        self, samples: Sequence[TrainSample], replies: int, sampling: Sampling
    ) -> list[list[str]]:
        inputs = self.encode(
            [Request(s.id, s.prompt, s.images, self.begin, system=s.system) for s in samples]
        )
        with torch.no_grad():
            new = self.write(inputs, self.stage.max_new_tokens, sampling, replies)
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        whole = [(self.begin + text).strip() for text in texts]
        return [whole[i : i + replies] for i in range(0, len(whole), replies)]


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


def encoded(processor: Any) -> Callable[[Sequence[tuple[TrainSample, str]]], dict[str, Any]]:
    """A function that makes a batch of samples and replies, with ``labels`` on the replies."""
    collator = DataCollatorForVisionLanguageModeling(
        processor, max_length=None, completion_only_loss=True
    )

    def collate(pairs: Sequence[tuple[TrainSample, str]]) -> dict[str, Any]:
        return dict(collator([chat_row(s, reply) for s, reply in pairs]))

    return collate


def losses(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative log-probability of each reply token, in nats.

    Args:
        model: The model. Only the columns of the replies pass through its head, since the logits of
            a whole row take a gigabyte.
        batch: A batch that :func:`encoded` made.

    Returns:
        The losses (rows, columns), and which columns of a row are tokens of its reply.
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
    """What a judge chose, and how many prompts were asked for it."""

    chosen: list[Any]
    asked: int


def sift(
    samples: Sequence[TrainSample],
    judge: Callable[[Sequence[TrainSample]], list[T]],
    *,
    wanted: int | None,
    allowed: int | None,
    seed: int,
) -> Sifted:
    """Ask prompts in a random order until enough are chosen.

    A stage that draws 320 prompts needs 320 that pass, and not all 2,400 judged: the first that
    pass in a random order are a uniform draw from all that would pass.

    Args:
        samples: The prompts.
        judge: Asks some of them, and returns what to choose of them.
        wanted: How many to choose; None asks all prompts.
        allowed: The most prompts to ask; None sets no limit.
        seed: Seeds the order.
    """
    order = random.Random(seed).sample(list(samples), len(samples))[:allowed]
    chosen: list[T] = []
    asked = 0
    while asked < len(order) and (wanted is None or len(chosen) < wanted):
        block = order[asked : asked + PROMPTS]
        chosen += judge(block)
        asked += len(block)
    return Sifted(chosen if wanted is None else chosen[:wanted], asked)


def asking_limit(stage: Stage, rounds: int = 1) -> int | None:
    """The most prompts to ask in each of ``rounds``, so that all take half the budget at most."""
    budget = stage.budget.samples
    return None if budget is None else budget // (2 * rounds)


def graded(
    stage: Stage, samples: Sequence[TrainSample], replies: Sequence[Sequence[str]]
) -> list[list[RewardParts]]:
    """The reward of each reply."""
    return [
        [stage.reward(sample, text) for text in texts]
        for sample, texts in zip(samples, replies, strict=True)
    ]


def one_process(method: str) -> None:
    """Refuse to run in several processes, since each would draw its own replies.

    Raises:
        CptBenchError: Several processes train this stage.
    """
    if processes() > 1:
        raise CptBenchError(
            f"{method} draws replies before it trains, in one process",
            todo="Run it without --launch, with lora_rank where the model needs several GPUs",
        )
