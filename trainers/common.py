"""What the TRL trainers share: loading the policy, the run's settings, the log."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from datasets import Dataset
from pydantic import Field, model_validator
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed

from cpt_bench.errors import CptBenchError
from cpt_bench.images import decode
from cpt_bench.policy import load_model, load_processor
from cpt_bench.trainer import Privileges, Stage, Trainer, TrainSample
from cpt_bench.trainers.parts.part import Part, parts_of
from cpt_bench.trainers.parts.settings import PartSettings

ZERO3: dict[str, Any] = {
    "bf16": {"enabled": "auto"},
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        # Checkpoints are whole: the next stage and the evaluation read them.
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}
FSDP: dict[str, Any] = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "transformer_layer_cls_to_wrap": ["Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"],
    "reshard_after_forward": True,
    "state_dict_type": "FULL_STATE_DICT",
}


class TRLConfig(PartSettings):
    """Settings that every TRL trainer has, beside those of the parts.

    Attributes:
        learning_rate: Peak learning rate of AdamW.
        schedule: Its course over a stage, after the warm-up.
        warmup_steps: Steps to the peak; below 1, a share of the stage's steps.
        max_steps: Optimiser steps a stage; None to go by ``epochs``.
        epochs: Passes over the train split when ``max_steps`` is None.
        epochs_by_task: The same for single tasks, by name.
        weight_decay: AdamW's decay.
        max_grad_norm: Gradient clipping.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        dtype: ``float32`` or ``bfloat16`` weights and arithmetic.
        attention: The attention implementation; ``eager`` is fastest on CPU for short sequences.
        gradient_accumulation: Batches an optimiser step.
        gradient_checkpointing: Trade time for memory.
        sharding: Split weights, gradients and optimiser over GPUs, by ``fsdp`` or DeepSpeed's
            ``zero3``; needs ``--launch``.
        deepspeed: A DeepSpeed config file instead of the built-in ``zero3``.
        lora_rank: Train low-rank adapters of this rank and merge them into the weights at the
            end of the stage; 0 trains all weights.
        lora_alpha: Scale of the adapters: their product counts ``lora_alpha / lora_rank``.
        min_pixels: Pictures are enlarged to at least so many pixels in training.
        max_pixels: Pictures are shrunk to at most so many pixels in training. The checkpoint keeps
            the limits it had: evaluation is the protocol's affair.
    """

    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int | float = Field(default=0, ge=0)
    max_steps: int | None = Field(default=None, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    epochs_by_task: dict[str, float] = Field(default_factory=dict)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: str = "eager"
    gradient_accumulation: int = Field(default=1, ge=1)
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp", "zero3"] = "none"
    deepspeed: str | None = None
    lora_rank: int = Field(default=0, ge=0)
    lora_alpha: float = Field(default=32.0, gt=0)
    min_pixels: int | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lora_rank and self.sharding != "none":
            raise ValueError("adapters are small: lora_rank goes with sharding=none")
        if (self.ewc or self.lwf) and (self.sharding != "none" or self.deepspeed):
            raise ValueError(
                "ewc and lwf read whole weights: sharding=none, with lora_rank on a GPU"
            )
        if self.lwf and self.reference == "base" and self.lora_rank:
            raise ValueError("with adapters, the reference is the task's start: reference=start")
        if self.olora != "off" and not self.lora_rank:
            raise ValueError("olora is about adapters: set lora_rank")
        return self

    def draws(self, stage: Stage, prompts: int) -> int | None:
        """Prompts that the stage's ``max_steps`` draw, ``prompts`` a batch; None: not settled."""
        if self.max_steps is None:
            return None
        drawn = self.drawn(self.max_steps, prompts)
        return drawn if stage.budget.samples is None else min(drawn, stage.budget.samples)

    def drawn(self, steps: int, prompts: int) -> int:
        """Prompts that ``steps`` optimiser steps draw: rollouts are made for several at a time."""
        together = self.steps_together()
        batches = math.ceil(steps / together) * together * self.gradient_accumulation
        return batches * prompts * processes()

    def steps_together(self) -> int:
        """Optimiser steps whose prompts are drawn at a time."""
        return getattr(self, "updates_per_generation", 1)

    def arguments(self, stage: Stage, scratch: Path, prompts: int) -> dict[str, Any]:
        """What is the same in the arguments of every TRL trainer; ``prompts`` are a batch's."""
        steps, drawn = self.max_steps, self.drawn(1, prompts)
        epochs = self.epochs_by_task.get(stage.task, self.epochs)
        if stage.budget.samples is not None:
            together = self.steps_together()
            allowed = stage.budget.samples // drawn * together
            if not allowed:
                raise CptBenchError(
                    f"one step draws {drawn} prompts, the budget is {stage.budget.samples}",
                    todo="Make the batch smaller, or the budget larger",
                )
            steps = min(steps or math.ceil(epochs * len(stage.samples) * together / drawn), allowed)
        return {
            "output_dir": str(scratch),
            "seed": stage.seed,
            "data_seed": stage.seed,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": self.schedule,
            "warmup_steps": self.warmup_steps,
            "max_steps": steps or -1,
            "num_train_epochs": epochs,
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "gradient_accumulation_steps": self.gradient_accumulation,
            "gradient_checkpointing": self.gradient_checkpointing,
            **self.sharded(),
            "use_cpu": self.on_cpu(),
            "bf16": self.dtype == "bfloat16",
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": not self.on_cpu(),
        }

    def sharded(self) -> dict[str, Any]:
        """The arguments that split the model over GPUs."""
        if self.deepspeed or self.sharding == "zero3":
            return {"deepspeed": self.deepspeed or ZERO3}
        return {"fsdp": True, "fsdp_config": dict(FSDP)} if self.sharding == "fsdp" else {}

    def adapters(self) -> Any:
        """The peft config of ``lora_rank``, or None."""
        if not self.lora_rank:
            return None
        from peft import LoraConfig

        return LoraConfig(
            r=self.lora_rank,
            lora_alpha=self.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )

    def place(self) -> str:
        """Where this process trains the model: ``cpu``, or its GPU."""
        return "cpu" if self.on_cpu() else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"

    def on_cpu(self) -> bool:
        import torch

        return self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available())


class TRLTrainer(Trainer):
    """What SFT and RFT share: their parts, and a choice of what to learn from."""

    @classmethod
    def declare(cls, config: Any) -> Privileges:
        return config.declared(cls.privileges)  # type: ignore[no-any-return]

    def select(self, stage: Stage, model: Any, log: StageLog) -> Sequence[TrainSample]:
        """The samples to learn from, of ``stage.samples``; a method may draw replies to choose.

        Prompts that it asks for that go into ``log.asked``: they count as drawn.
        """
        return stage.samples

    def begin(self, stage: Stage, model: Any, log: StageLog) -> tuple[Stage, list[Part]]:
        """The stage with what is learned in it and what is left of its budget; and its parts."""
        parts = parts_of(self.config, stage)
        samples = stage.samples
        for part in parts:
            samples = part.mix(samples)
        stage = replace(stage, samples=samples)
        stage = replace(stage, samples=self.select(stage, model, log))
        if log.asked:
            log.tell_asked(len(stage.samples))
            if stage.budget.samples is not None:
                left = stage.budget.samples - log.asked
                stage = replace(stage, budget=stage.budget.model_copy(update={"samples": left}))
        return stage, parts


def processes() -> int:
    """How many processes train this stage together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def load(stage: Stage, config: TRLConfig) -> tuple[Any, Any]:
    """The stage's start checkpoint: (model, processor)."""
    # accelerate places the model where it trains; loading it on the CPU first is enough.
    if config.lora_rank:
        set_seed(stage.seed)  # adapters start at random, before TRL's trainer seeds anything
    model = load_model(stage.policy, device="cpu", dtype=config.dtype, attention=config.attention)
    return model, training_processor(stage, config)


def training_processor(stage: Stage, config: TRLConfig) -> Any:
    """The start checkpoint's processor with the limits on pictures that training has."""
    processor = load_processor(stage.policy)
    images = processor.image_processor
    processor.full_size = images.size
    limits = {"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels}
    if changed := {key: value for key, value in limits.items() if value}:
        images.size = type(images.size)(**{**dict(images.size), **changed})
    return processor


def shown(sample: TrainSample) -> list[Any]:
    """A sample's images as RGB pictures."""
    return [decode(image, sample.id) for image in sample.images]


class _Rows:
    """Makes the rows that a batch asks for."""

    def __init__(self, samples: Sequence[TrainSample], row: Callable[[TrainSample], Any]) -> None:
        self.samples, self.row = samples, row

    def __call__(self, asked: dict[str, list[int]]) -> dict[str, list[Any]]:
        # A prompt that has several rollouts is asked for as often, and made once.
        made = {i: {**self.row(self.samples[i]), "sample": i} for i in asked["sample"]}
        rows = [made[i] for i in asked["sample"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def __getstate__(self) -> int:
        # datasets hashes what it is given, by pickling it; nothing here is found by that hash.
        return len(self.samples)


def dataset(
    samples: Sequence[TrainSample], row: Callable[[TrainSample], dict[str, Any]]
) -> Dataset:
    """A data set of ``samples`` whose rows are made when a batch asks for them.

    Args:
        samples: The samples of a stage.
        row: One of them as TRL takes it; its number is added as ``sample``.
    """
    numbers = Dataset.from_dict({"sample": list(range(len(samples)))})
    return numbers.with_transform(_Rows(samples, row))


def user_turn(sample: TrainSample) -> list[dict[str, Any]]:
    """The prompt as TRL takes it; TRL puts the images in front of the words."""
    return [{"role": "user", "content": sample.prompt}]


def chat_row(sample: TrainSample, reply: str) -> dict[str, Any]:
    """Prompt, completion and images of a sample, in TRL's conversational form.

    Args:
        sample: The sample.
        reply: What is learned of it.
    """
    return {
        "prompt": user_turn(sample),
        "completion": [{"role": "assistant", "content": reply}],
        "images": shown(sample),
    }


def pass_on(model: Any, processor: Any, stage: Stage, why: str) -> None:
    """Write the stage's start policy as its result: its method found nothing to learn from."""
    stage.tell(f"stage {stage.index} ({stage.task}): {why}; the policy is passed on as it is")
    model.save_pretrained(stage.output)
    processor.image_processor.size = processor.full_size
    processor.save_pretrained(stage.output)


def save(trainer: Any, processor: Any, stage: Stage) -> None:
    """Write the trained policy to ``stage.output`` as safetensors with its processor.

    Adapters are merged into the weights: every checkpoint is whole. With several processes all
    must come here, and the first one writes.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        if trainer.args.should_save:
            model.merge_and_unload().save_pretrained(stage.output)
    else:
        trainer.save_model(str(stage.output))
    if trainer.args.should_save:
        processor.image_processor.size = processor.full_size
        processor.save_pretrained(stage.output)


class StageLog(TrainerCallback):
    """Passes the figures of each step on to ``stage.log``."""

    def __init__(self, stage: Stage, prompts: int) -> None:
        self.stage, self.prompts = stage, prompts
        self.generation_seconds = 0.0
        self.figures: dict[str, float] = {}
        """More of the next row."""
        self.asked = 0
        """Prompts asked to choose what to learn from."""

    def tell_asked(self, kept: int) -> None:
        """Log, as step 0, how many prompts were asked and how many samples came of it."""
        row: dict[str, Any] = {"step": 0, "steps": 0, "samples": self.asked}
        row |= {"asked": self.asked, "kept": kept}
        self.stage.log({**row, "generation_seconds": round(self.generation_seconds, 4)})
        self.generation_seconds = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        figures = {key: _number(value) for key, value in (logs or {}).items()}
        if "train_runtime" in figures:  # the summary at the end
            return
        # RFT draws the prompts of several steps at a time.
        at_once = getattr(args, "steps_per_generation", None) or args.gradient_accumulation_steps
        batches = math.ceil(state.global_step * args.gradient_accumulation_steps / at_once)
        drawn = batches * at_once * self.prompts * processes() + self.asked
        row = {"step": state.global_step, "steps": state.max_steps, "samples": drawn}
        row |= {key: value for key, value in figures.items() if value is not None}
        row |= self.figures
        self.figures = {}
        if self.generation_seconds:
            row["generation_seconds"] = round(self.generation_seconds, 4)
            self.generation_seconds = 0.0
        self.stage.log(row)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def quiet(trainer: Any, log: StageLog) -> None:
    """Our log in place of TRL's printing."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(log)


class Stopwatch:
    """Adds the seconds spent inside a ``with`` block to a log's generation time."""

    def __init__(self, log: StageLog) -> None:
        self.log = log

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.log.generation_seconds += time.monotonic() - self.start
