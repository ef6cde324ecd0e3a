"""Supervised fine-tuning: cross-entropy on the gold answer, nothing else.

The loss is on the answer's tokens alone; the target is the bare gold answer in the protocol's form
(arXiv 2507.05386 trains SFT on direct answers).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field
from trl import SFTConfig, SFTTrainer

from cpt_bench.trainer import Stage, Trainer, TrainSample
from cpt_bench.trainers.common import (
    StageLog,
    TRLConfig,
    dataset,
    load,
    pictures,
    quiet,
    save,
    user_turn,
)


class SFT(Trainer):
    """Supervised fine-tuning on gold answers, with TRL's SFTTrainer."""

    class Config(TRLConfig):
        """Settings of :class:`SFT`.

        Attributes:
            batch_size: Samples a batch and device.
        """

        batch_size: int = Field(default=32, ge=1)

    def train(self, stage: Stage) -> None:
        model, processor = load(stage, self.config)
        with tempfile.TemporaryDirectory() as scratch:
            arguments = SFTConfig(
                **self.config.arguments(stage, Path(scratch), self.config.batch_size),
                per_device_train_batch_size=self.config.batch_size,
                max_length=None,  # cutting a prompt would cut its image tokens
                completion_only_loss=True,
            )
            trainer = SFTTrainer(
                model=model,
                args=arguments,
                processing_class=processor,
                train_dataset=rows(stage),
                peft_config=self.config.adapters(),
            )
            # Every answer token weighs the same, however a batch is cut up. Qwen2.5-VL's class
            # tells Trainer not to count a step's tokens over micro-batches and processes; TRL's
            # loss, which is the one used here, does divide by that count.
            trainer.model_accepts_loss_kwargs = True
            quiet(trainer, StageLog(stage, self.config.batch_size))
            trainer.train()
            save(trainer, processor, stage)


def rows(stage: Stage) -> Any:
    """Prompt, completion and images of each sample, in TRL's conversational form."""
    return dataset([_row(sample) for sample in stage.samples])


def _row(sample: TrainSample) -> dict[str, Any]:
    return {
        "prompt": user_turn(sample),
        "completion": [{"role": "assistant", "content": sample.target}],
        "images": pictures(sample),
    }
