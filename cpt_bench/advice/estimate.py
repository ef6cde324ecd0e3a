"""What a run will take, by arithmetic alone: steps, tokens, rollouts, memory, disk, hours.

Nothing is downloaded or measured. Every figure follows from counts that are known (samples,
weights) and from assumptions that are printed with it (how long replies are, how busy GPUs
get); hours are good to a factor of two at best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from cpt_bench.models.families.weights import Architecture

GIB = 2**30


class GPU(NamedTuple):
    """A device: memory in GiB, peak dense bf16 in operations a second."""

    name: str
    memory: float
    peak: float


GPUS = {
    "a100-80": GPU("A100 80 GB", 80, 312e12),
    "h100-80": GPU("H100 80 GB", 80, 989e12),
    "h200": GPU("H200 141 GB", 141, 989e12),
}


class Assumed(NamedTuple):
    """What is not known before a run; each is printed with the plan.

    Attributes:
        pixels: Of a picture, before the limits of the settings, where its card does not say.
        words: Tokens of a question's words.
        target: Tokens of a supervised answer.
        thought: Tokens of a reply that thinks first.
        use_training: Share of the peak that training reaches.
        use_prefill: Share that reading prompts reaches.
        decode: Tokens a second that one GPU writes in a large batch, in bf16, with a model of
            ``decode_weights`` weights; scaled by size.
        decode_weights: See there.
        transformers: How many times slower than vLLM transformers writes.
        start: Seconds until an engine answers.
    """

    pixels: float = 300e3
    words: float = 100
    target: float = 8
    thought: float = 200
    use_training: float = 0.35
    use_prefill: float = 0.45
    decode: float = 2000
    decode_weights: float = 8_292_166_656
    transformers: float = 4
    start: float = 80


ASSUMED = Assumed()


class Settings(BaseModel):
    """What the arithmetic reads of a recipe, with the trainers' own defaults; the rest is ignored.

    Attributes are those of the trainers' ``Config``.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    algorithm: str = "grpo"
    epochs: float = Field(default=1.0, gt=0)
    epochs_by_task: dict[str, float] = {}
    max_steps: int | None = Field(default=None, gt=0)
    gradient_accumulation: int = Field(default=1, ge=1)
    batch_size: int = Field(default=32, ge=1)
    prompts_per_step: int = Field(default=16, ge=1)
    rollouts: int = Field(default=8, ge=1)
    updates_per_generation: int = Field(default=1, ge=1)
    kl: float = Field(default=0.0, ge=0)
    lora_rank: int = Field(default=0, ge=0)
    sharding: str = "none"
    deepspeed: Any = None
    gradient_checkpointing: bool = False
    use_vllm: bool = False
    vllm_memory: float = Field(default=0.3, ge=0, le=1)
    dtype: str = "float32"
    min_pixels: int | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)

    @property
    def sharded(self) -> bool:
        """Whether the model is split over the processes that train it."""
        return bool(self.deepspeed) or self.sharding != "none"

    @property
    def width(self) -> int:
        """Bytes of a weight."""
        return 2 if self.dtype == "bfloat16" else 4


class StageCost(NamedTuple):
    """One stage's training. Tokens are those that pass through training steps."""

    task: str
    samples: int
    epochs: float
    steps: int
    prompts: int
    rollouts: int
    written: float
    trained: float
    train_hours: float
    rollout_hours: float


class Evaluation(NamedTuple):
    """All evaluations of a run."""

    questions: int
    written: float
    hours: float


def steps(samples: int, epochs: float, batch: int, most: int | None) -> int:
    """Optimiser steps of a stage: whole batches of ``batch`` samples, the last one included."""
    return most if most is not None else math.ceil(samples * epochs / batch)


def stage(
    task: str,
    samples: int,
    pixels: float,
    rl: bool,
    settings: Settings,
    model: Architecture,
    gpu: GPU,
    gpus: int,
    assumed: Assumed,
) -> StageCost:
    """What training one stage takes.

    Args:
        task: Its name.
        samples: Of its train split.
        pixels: Of a picture of its questions; 0 where they have none.
        rl: Rollouts and rewards, else supervised.
        settings: The trainer's.
        model: The policy.
        gpu: The device.
        gpus: How many.
        assumed: See :class:`Assumed`.
    """
    s = settings
    epochs = s.epochs_by_task.get(task, s.epochs)
    batch = (s.prompts_per_step if rl else s.batch_size) * s.gradient_accumulation * gpus
    n = steps(samples, epochs, batch, s.max_steps)
    prompts = n * batch
    image = picture(pixels, settings, model)
    reply = assumed.thought if rl else assumed.target
    sequence = assumed.words + image + reply
    sequences = prompts * (s.rollouts if rl else 1)
    once = model.forward(assumed.words + reply, image)
    train = sequences * once * passes(rl, settings)
    train_hours = train / (gpus * gpu.peak * assumed.use_training) / 3600
    rollouts = sequences if rl else 0
    greedy = prompts if rl and s.algorithm == "remax" else 0
    written = (rollouts + greedy) * reply
    reading = prompts * model.forward(assumed.words, image)
    hours = reply_hours(written, reading, model, gpu, gpus, assumed, s.use_vllm)
    return StageCost(
        task, samples, epochs, n, prompts, rollouts, written, sequences * sequence, train_hours,
        hours if rl else 0.0,
    )  # fmt: skip


def passes(rl: bool, settings: Settings) -> float:
    """Training's cost of a sequence in forward passes.

    Forward 1, gradients of activations 1, gradients of weights 1 (next to nothing for adapters),
    forward again under checkpointing 1; the old policy's and the reference's probabilities 1 each.
    """
    s = settings
    total = 2.0 if s.lora_rank else 3.0
    total += bool(s.gradient_checkpointing)
    if rl:
        total += s.updates_per_generation > 1
        total += s.kl > 0
    return total


def picture(pixels: float, settings: Settings, model: Architecture) -> int:
    """Image tokens of a question under the settings' limits."""
    if not pixels:
        return 0
    pixels = max(pixels, settings.min_pixels or 0)
    return model.image_tokens(min(pixels, settings.max_pixels or pixels))


def reply_hours(
    written: float,
    reading: float,
    model: Architecture,
    gpu: GPU,
    gpus: int,
    assumed: Assumed,
    vllm: bool,
) -> float:
    """Hours to read prompts (``reading`` operations) and write ``written`` tokens."""
    speed = assumed.decode * assumed.decode_weights / (model.active + model.vision)
    speed /= 1 if vllm else assumed.transformers
    seconds = written / speed + reading / (gpu.peak * assumed.use_prefill)
    return seconds / gpus / 3600


def evaluation(
    asked: Mapping[str, int],
    pixels: Mapping[str, float],
    rows: int,
    thoughtful: bool,
    model: Architecture,
    gpu: GPU,
    assumed: Assumed,
    vllm: bool,
) -> Evaluation:
    """All evaluations of a run; one engine on one GPU answers.

    Args:
        asked: Benchmark to its questions in the whole run.
        pixels: Benchmark to the pixels of a picture.
        rows: How many models are evaluated: an engine is started for each.
        thoughtful: Whether replies think first.
        model: The policy.
        gpu: The device.
        assumed: See :class:`Assumed`.
        vllm: What answers: vLLM, else transformers.
    """
    questions, reply = sum(asked.values()), assumed.thought if thoughtful else assumed.target
    reading = sum(
        n * model.forward(assumed.words, picture(pixels[name], Settings(), model))
        for name, n in asked.items()
    )
    written = questions * reply
    hours = reply_hours(written, reading, model, gpu, 1, assumed, vllm)
    return Evaluation(questions, written, hours + rows * assumed.start / 3600)


class Memory(NamedTuple):
    """GiB on each GPU while training; see :func:`memory`."""

    weights: float
    optimiser: float
    reference: float
    vllm: float
    activations: float

    @property
    def total(self) -> float:
        return sum(self)


def memory(
    rl: bool,
    settings: Settings,
    model: Architecture,
    gpu: GPU,
    gpus: int,
    longest: float,
) -> Memory:
    """Memory of training on each GPU.

    Args:
        rl: Rollouts and rewards, else supervised.
        settings: The trainer's.
        model: The policy.
        gpu: The device.
        gpus: How many share what is shared.
        longest: Tokens of a long sequence; activations follow it.
    """
    s = settings
    share = gpus if s.sharded else 1
    width = s.width
    trained = lora(model, s.lora_rank) if s.lora_rank else model.parameters
    weights = width * model.parameters / share
    # Gradients and AdamW's two moments; sharded, a float32 copy too, and all in float32.
    each = (width + 4 + 4 + 4) if s.sharded else 3 * (4 if s.lora_rank else width)
    optimiser = each * trained / share
    # Adapters switched off are the reference.
    reference = width * model.parameters / share if rl and s.kl > 0 and not s.lora_rank else 0
    vllm = s.vllm_memory * gpu.memory * GIB if rl and s.use_vllm else 0
    sequences = s.prompts_per_step * s.rollouts if rl else s.batch_size
    layer = longest * model.width * width
    stored = layer * model.layers if s.gradient_checkpointing else 17 * layer * model.layers
    working = 17 * layer + longest * (model.words * 4 if not rl else 0)
    gathered = 2 * width * model.language / model.layers if share > 1 else 0
    activations = sequences * (stored + working) + gathered
    return Memory(*(x / GIB for x in (weights, optimiser, reference, vllm, activations)))


def lora(model: Architecture, rank: int) -> int:
    """Weights of adapters of ``rank`` on every linear layer of the language model and the tower."""
    return rank * model.adapted


def disk(model: Architecture, stages: int, keep: str, width: int) -> float:
    """GiB of checkpoints at the fullest moment: base, those that stay, the one being written."""
    most = {"all": stages, "last": 2, "none": 2}[keep]
    return (1 + most) * model.parameters * width / GIB


def hours_of(stages: Sequence[StageCost], tested: Evaluation, overlap: bool) -> float:
    """Wall hours: training and rollouts one after the other, evaluation meanwhile or after them."""
    training = sum(s.train_hours + s.rollout_hours for s in stages)
    return max(training, tested.hours) if overlap else training + tested.hours
