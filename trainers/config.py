"""The settings that all trainers on TRL share, and TRL's arguments made of them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cpt_bench.errors import CptBenchError
from cpt_bench.trainer import Needs, Stage
from cpt_bench.trainers.parts.settings import PartSettings
from cpt_bench.trainers.resuming import saving

ZERO3: dict[str, Any] = {
    "bf16": {"enabled": "auto"},
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        # Checkpoints hold all weights: the next stage and the evaluation read them.
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}
FSDP: dict[str, Any] = {
    "version": 2,
    # Which layers are wrapped, each model names itself (its _no_split_modules).
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "FULL_STATE_DICT",
}


class TRLConfig(PartSettings):
    """Settings of every trainer on TRL, in addition to those of the parts.

    Attributes:
        learning_rate: Peak learning rate of the optimiser.
        optimizer: ``adamw``, or ``muon`` for hidden matrices and AdamW for the rest; see
            :mod:`cpt_bench.trainers.muon`.
        schedule: How the learning rate falls over a stage, after the warm-up.
        warmup_steps: Steps to the peak; below 1, a share of the stage's steps.
        max_steps: Optimiser steps in a stage; None goes by ``epochs``.
        epochs: Passes over the train split when ``max_steps`` is None.
        epochs_by_task: Passes over the train split for single tasks, by name.
        weight_decay: The optimiser's decay.
        max_grad_norm: Gradient clipping.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        dtype: ``float32`` or ``bfloat16`` weights and arithmetic.
        attention: The attention implementation; ``eager`` is fastest on CPU for short sequences.
        gradient_accumulation: Batches in an optimiser step.
        gradient_checkpointing: Takes less memory and more time.
        sharding: Split weights, gradients and optimiser over GPUs, by ``fsdp`` or DeepSpeed's
            ``zero3``; needs ``--launch``.
        deepspeed: A DeepSpeed config file instead of the built-in ``zero3``.
        lora_rank: Train low-rank adapters of this rank and merge them into the weights at the
            end of the stage; 0 trains all weights.
        lora_alpha: Scale of the adapters: their product is multiplied by ``lora_alpha /
            lora_rank``.
        min_pixels: In training, smaller pictures are enlarged to this many pixels.
        max_pixels: In training, larger pictures are shrunk to this many pixels. The saved
            checkpoint has the limits it had before: the protocol sets those of evaluation.
    """

    learning_rate: float = Field(gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
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
            raise ValueError("adapters need no sharding: set sharding=none with lora_rank")
        sharded = self.sharding != "none" or bool(self.deepspeed)
        if sharded and self.device == "cpu":  # accelerate would train without splitting anything
            raise ValueError("a model is split over GPUs: set sharding=none with device=cpu")
        if (self.ewc or self.lwf) and sharded:
            raise ValueError(
                "ewc and lwf need whole weights: set sharding=none, and lora_rank to fit a GPU"
            )
        whole = {
            "cpo": self.cpo > 0,
            "reset": self.reset != "off",
            "muon": self.optimizer == "muon",
        }
        for name in (name for name, on in whole.items() if on):
            if sharded or self.lora_rank:
                raise ValueError(f"{name} acts on whole weights: set sharding=none, lora_rank=0")
        if self.lwf and self.reference == "base" and self.lora_rank:
            raise ValueError("lora_rank with lwf needs reference=start")
        if self.olora != "off" and not self.lora_rank:
            raise ValueError("olora constrains adapters: set lora_rank")
        return self

    def needs(self) -> Needs:
        """What must be there to train under these settings."""
        found = {
            "deepspeed": bool(self.deepspeed) or self.sharding == "zero3",
            "peft": self.lora_rank > 0,
            "flash_attn": self.attention.startswith("flash_attention"),
            "vllm": getattr(self, "use_vllm", False),
        }
        packages = tuple(package for package, needed in found.items() if needed)
        return Needs(
            packages,
            gpu=self.device == "cuda" or self.sharding != "none" or bool(self.deepspeed),
            launch=self.sharding != "none",
            pixels=(self.min_pixels, self.max_pixels),
        )

    def prompts_in_stage(self, stage: Stage, batch: int) -> int | None:
        """Prompts that a stage draws, ``batch`` at a time; None where ``epochs`` decide."""
        if self.max_steps is None:
            return None
        drawn = self.prompts_in(self.max_steps, batch)
        return drawn if stage.budget.samples is None else min(drawn, stage.budget.samples)

    def prompts_in(self, steps: int, batch: int) -> int:
        """Prompts that ``steps`` optimiser steps draw, ``batch`` at a time in each process."""
        together = self.steps_together()
        batches = math.ceil(steps / together) * together * self.gradient_accumulation
        return batches * batch * processes()

    def steps_together(self) -> int:
        """Optimiser steps whose prompts are drawn together: RFT writes rollouts for several."""
        return getattr(self, "updates_per_generation", 1)

    def arguments(self, stage: Stage, scratch: Path, batch: int) -> dict[str, Any]:
        """The arguments that all of TRL's trainers share.

        Args:
            stage: The stage.
            scratch: A folder for files that nobody needs afterwards.
            batch: Prompts in a batch of one process.
        """
        steps, drawn = self.max_steps, self.prompts_in(1, batch)
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
            **saving(stage, self.steps_together()),
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": not self.on_cpu(),
        }

    def sharded(self) -> dict[str, Any]:
        """The arguments that split the model over GPUs; empty where it is not split."""
        if self.deepspeed or self.sharding == "zero3":
            return {"deepspeed": self.deepspeed or ZERO3}
        return {"fsdp": True, "fsdp_config": dict(FSDP)} if self.sharding == "fsdp" else {}

    def adapters(self) -> Any:
        """The peft config for ``lora_rank``; None where all weights are trained."""
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
        """The device on which this process trains: ``cpu``, or its own GPU."""
        return "cpu" if self.on_cpu() else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"

    def on_cpu(self) -> bool:
        """Whether the stage is trained on a CPU."""
        import torch

        return self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available())


def processes() -> int:
    """How many processes train this stage together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
