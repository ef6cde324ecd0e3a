"""Supervised fine-tuning: cross-entropy on the gold answer, nothing else.

The loss is on the answer's tokens alone; the target is the bare gold answer in the protocol's form
(arXiv 2507.05386 trains SFT on direct answers).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from datasets import Dataset
from pydantic import Field
from trl import SFTConfig, SFTTrainer

from cpt_bench.trainer import Stage
from cpt_bench.trainers.answers import AnswersAlone
from cpt_bench.trainers.common import (
    StageLog,
    TRLConfig,
    TRLTrainer,
    chat_row,
    dataset,
    load,
    pass_on,
    quiet,
    save,
)
from cpt_bench.trainers.parts.part import joined


class LeanSFT(AnswersAlone, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, which on a CPU computes the answers alone."""


class SFT(TRLTrainer):
    """Supervised fine-tuning on gold answers, with TRL's SFTTrainer."""

    class Config(TRLConfig):
        """Settings of :class:`SFT`.

        Attributes:
            batch_size: Samples a batch and device.
        """

        batch_size: int = Field(default=32, ge=1)

    def train(self, stage: Stage) -> None:
        model, processor = load(stage, self.config)
        log = StageLog(stage, self.config.batch_size)
        stage, parts = self.begin(stage, model, log)
        if not stage.samples:
            return pass_on(model, processor, stage, "nothing passed the filter")
        with tempfile.TemporaryDirectory() as scratch:
            arguments = SFTConfig(
                **self.config.arguments(stage, Path(scratch), self.config.batch_size),
                per_device_train_batch_size=self.config.batch_size,
                max_length=None,  # cutting a prompt would cut its image tokens
                completion_only_loss=True,
                remove_unused_columns=False,  # a row has other columns than the data set
            )
            trainer = joined(LeanSFT, parts)(
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
            self.adjust(trainer, stage, log)
            for part in parts:
                part.attach(trainer)
            quiet(trainer, log)
            trainer.train()
            for part in parts:
                part.finish(trainer)
            save(trainer, processor, stage)

    def adjust(self, trainer: SFTTrainer, stage: Stage, log: StageLog) -> None:
        """Change TRL's trainer before its first step; SFT itself changes nothing."""


def rows(stage: Stage) -> Dataset:
    """Prompt, completion and images of each sample, in TRL's conversational form."""
    return dataset(stage.samples, lambda sample: chat_row(sample, sample.target))
