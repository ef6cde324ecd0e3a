"""What a run will take, by arithmetic alone: steps, tokens, rollouts, memory, disk, hours.

Nothing is downloaded or measured. Every figure follows from counts that are known (samples,
weights) and from assumptions that are printed beside it (how long replies are, how busy GPUs
get); hours are good to a factor of two at best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

GIB = 2**30


class Architecture(NamedTuple):
    """A Qwen2.5-VL, as its ``config.json`` describes it."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    words: int
    tied: bool
    vision_layers: int
    vision_width: int
    vision_inner: int
    patch: int
    merge: int
    temporal: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Architecture:
        """From ``config.json``, old or new layout."""
        text, vision = config.get("text_config") or config, config["vision_config"]
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        return cls(
            layers=text["num_hidden_layers"],
            width=text["hidden_size"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            inner=text["intermediate_size"],
            words=text["vocab_size"],
            tied=bool(tied),
            vision_layers=vision["depth"],
            vision_width=vision["hidden_size"],
            vision_inner=vision["intermediate_size"],
            patch=vision["patch_size"],
            merge=vision["spatial_merge_size"],
            temporal=vision["temporal_patch_size"],
        )

    @property
    def language(self) -> int:
        """Weights of the language model."""
        kv = self.width // self.heads * self.kv_heads
        attention = 2 * self.width**2 + self.width + 2 * kv * (self.width + 1)
        layer = attention + 3 * self.width * self.inner + 2 * self.width
        tables = (1 if self.tied else 2) * self.words * self.width
        return self.layers * layer + self.width + tables

    @property
    def vision(self) -> int:
        """Weights of the vision tower and its merger."""
        w, inner, merged = self.vision_width, self.vision_inner, self.vision_width * self.merge**2
        block = w * 3 * w + 3 * w + w * w + w + 3 * w * inner + 2 * inner + w + 2 * w
        patches = 3 * self.temporal * self.patch**2 * w
        merger = w + merged**2 + merged + merged * self.width + self.width
        return patches + self.vision_layers * block + merger

    @property
    def parameters(self) -> int:
        return self.language + self.vision

    def image_tokens(self, pixels: float) -> int:
        """Tokens of a picture of so many pixels: one for each square of patch x merge a side."""
        return max(1, round(pixels / (self.patch * self.merge) ** 2))

    def forward(self, words: float, image: float) -> float:
        """Floating-point operations of a pass over a sequence: 2 a weight and token.

        Attention's own products are left out; an image token costs merge^2 patches in the tower.
        """
        return 2 * (self.language * (words + image) + self.vision * image * self.merge**2)


QWEN_7B = Architecture(28, 3584, 28, 4, 18944, 152064, False, 32, 1280, 3420, 14, 2, 2)
MODELS = {"Qwen/Qwen2.5-VL-7B-Instruct": QWEN_7B}
"""Base models of suites that do not ship them."""


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
        pixels: Of a picture, by task, before the limits of the settings; ``""`` is any other task.
        words: Tokens of a question's words.
        target: Tokens of a supervised answer.
        thought: Tokens of a reply that thinks first.
        use_training: Share of the peak that training reaches.
        use_prefill: Share that reading prompts reaches.
        decode: Tokens a second that one GPU writes in a large batch, 7B, bf16; scaled by size.
        transformers: How many times slower than vLLM transformers writes.
        start: Seconds until an engine answers.
    """

    pixels: Mapping[str, float]
    words: float = 100
    target: float = 8
    thought: float = 200
    use_training: float = 0.35
    use_prefill: float = 0.45
    decode: float = 2000
    transformers: float = 4
    start: float = 80


ASSUMED = Assumed(
    {
        "": 300e3, "scienceqa": 100e3, "textvqa": 770e3, "vizwiz": 1.8e6, "gqa": 190e3,
        "geometry3k": 75e3, "pathvqa": 350e3, "superclevr": 307e3, "mmmu": 400e3, "pope": 300e3,
        "mmlu_pro": 0.0,
    }
)  # fmt: skip

DEFAULTS: dict[str, Any] = {
    "algorithm": "grpo", "epochs": 1.0, "epochs_by_task": {}, "max_steps": None,
    "gradient_accumulation": 1, "batch_size": 32, "prompts_per_step": 16, "rollouts": 8,
    "updates_per_generation": 1, "kl": 0.0, "lora_rank": 0, "sharding": "none", "deepspeed": None,
    "gradient_checkpointing": False, "use_vllm": False, "vllm_memory": 0.3, "dtype": "float32",
    "min_pixels": None, "max_pixels": None,
}  # fmt: skip
"""The trainers' own defaults, for settings a recipe leaves out."""


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
    rl: bool,
    settings: Mapping[str, Any],
    model: Architecture,
    gpu: GPU,
    gpus: int,
    assumed: Assumed,
) -> StageCost:
    """What training one stage takes.

    Args:
        task: Its name.
        samples: Of its train split.
        rl: Rollouts and rewards, else supervised.
        settings: The trainer's.
        model: The policy.
        gpu: The device.
        gpus: How many.
        assumed: See :class:`Assumed`.
    """
    s = settings
    epochs = s["epochs_by_task"].get(task, s["epochs"])
    batch = s["prompts_per_step" if rl else "batch_size"] * s["gradient_accumulation"] * gpus
    n = steps(samples, epochs, batch, s["max_steps"])
    prompts = n * batch
    image = picture(task, settings, model, assumed)
    reply = assumed.thought if rl else assumed.target
    sequence = assumed.words + image + reply
    sequences = prompts * (s["rollouts"] if rl else 1)
    once = model.forward(assumed.words + reply, image)
    train = sequences * once * passes(rl, settings)
    train_hours = train / (gpus * gpu.peak * assumed.use_training) / 3600
    rollouts = sequences if rl else 0
    greedy = prompts if rl and s["algorithm"] == "remax" else 0
    written = (rollouts + greedy) * reply
    reading = prompts * model.forward(assumed.words, image)
    hours = reply_hours(written, reading, model, gpu, gpus, assumed, bool(s["use_vllm"]))
    return StageCost(
        task, samples, epochs, n, prompts, rollouts, written, sequences * sequence, train_hours,
        hours if rl else 0.0,
    )  # fmt: skip


def passes(rl: bool, settings: Mapping[str, Any]) -> float:
    """Training's cost of a sequence in forward passes.

    Forward 1, gradients of activations 1, gradients of weights 1 (next to nothing for adapters),
    forward again under checkpointing 1; the old policy's and the reference's probabilities 1 each.
    """
    s = settings
    total = 2.0 if s["lora_rank"] else 3.0
    total += bool(s["gradient_checkpointing"])
    if rl:
        total += s["updates_per_generation"] > 1
        total += s["kl"] > 0
    return total


def picture(task: str, settings: Mapping[str, Any], model: Architecture, assumed: Assumed) -> int:
    """Image tokens of a task's question under the settings' limits."""
    pixels = assumed.pixels.get(task, assumed.pixels[""])
    if not pixels:
        return 0
    pixels = max(pixels, settings["min_pixels"] or 0)
    return model.image_tokens(min(pixels, settings["max_pixels"] or pixels))


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
    speed = assumed.decode * QWEN_7B.parameters / model.parameters
    speed /= 1 if vllm else assumed.transformers
    seconds = written / speed + reading / (gpu.peak * assumed.use_prefill)
    return seconds / gpus / 3600


def evaluation(
    tasks: Mapping[str, int],
    general: Mapping[str, int],
    every_stage: bool,
    thoughtful: bool,
    model: Architecture,
    gpu: GPU,
    gpus: int,
    assumed: Assumed,
    vllm: bool,
) -> Evaluation:
    """All evaluations: each task after each stage and before, general ones when the protocol says.

    One engine on one GPU answers, whatever ``gpus`` is.
    """
    rows = len(tasks) + 1
    measured = {**{t: n * rows for t, n in tasks.items()}}
    for name, n in general.items():
        measured[name] = n * (rows if every_stage else 2)
    reply = assumed.thought if thoughtful else assumed.target
    none: dict[str, Any] = {"min_pixels": None, "max_pixels": None}
    reading = sum(
        n * model.forward(assumed.words, picture(t, none, model, assumed))
        for t, n in measured.items()
    )
    written = sum(measured.values()) * reply
    hours = reply_hours(written, reading, model, gpu, 1, assumed, vllm)
    return Evaluation(sum(measured.values()), written, hours + rows * assumed.start / 3600)


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
    settings: Mapping[str, Any],
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
    sharded = bool(s["deepspeed"]) or s["sharding"] != "none"
    share = gpus if sharded else 1
    width = 2 if s["dtype"] == "bfloat16" else 4
    trained = lora(model, s["lora_rank"]) if s["lora_rank"] else model.parameters
    weights = width * model.parameters / share
    # Gradients and AdamW's two moments; sharded, a float32 copy too, and all in float32.
    each = (width + 4 + 4 + 4) if sharded else 3 * (4 if s["lora_rank"] else width)
    optimiser = each * trained / share
    # Adapters switched off are the reference.
    reference = width * model.parameters / share if rl and s["kl"] > 0 and not s["lora_rank"] else 0
    vllm = s["vllm_memory"] * gpu.memory * GIB if rl and s["use_vllm"] else 0
    sequences = s["prompts_per_step"] * s["rollouts"] if rl else s["batch_size"]
    layer = longest * model.width * width
    kept = layer * model.layers if s["gradient_checkpointing"] else 17 * layer * model.layers
    working = 17 * layer + longest * (model.words * 4 if not rl else 0)
    gathered = 2 * width * model.language / model.layers if share > 1 else 0
    activations = sequences * (kept + working) + gathered
    return Memory(*(x / GIB for x in (weights, optimiser, reference, vllm, activations)))


def lora(model: Architecture, rank: int) -> int:
    """Weights of adapters of ``rank`` on every linear layer of the language model and the tower."""
    kv = model.width // model.heads * model.kv_heads
    ends = 2 * (model.width + model.width) + 2 * (model.width + kv)
    ends += 3 * (model.width + model.inner)
    w = model.vision_width
    vision = (w + 3 * w) + (w + w) + 3 * (w + model.vision_inner)
    return rank * (model.layers * ends + model.vision_layers * vision)


def disk(model: Architecture, stages: int, keep: str, width: int) -> float:
    """GiB of checkpoints at the fullest moment: base, those kept, and the one being written."""
    kept = {"all": stages, "last": 2, "none": 2}[keep]
    return (1 + kept) * model.parameters * width / GIB


def hours_of(stages: Sequence[StageCost], tested: Evaluation, overlap: bool) -> float:
    """Wall hours: training and rollouts one after the other, evaluation beside or after them."""
    training = sum(s.train_hours + s.rollout_hours for s in stages)
    return max(training, tested.hours) if overlap else training + tested.hours
