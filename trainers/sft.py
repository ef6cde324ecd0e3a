"""Supervised fine-tuning: cross-entropy on the gold answer, nothing else.

The loss covers the answer's tokens alone. The target is the gold answer in the protocol's form,
without a chain of thought (arXiv 2507.05386 trains SFT on direct answers).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from trl import SFTConfig

from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.answers import AnswersSFT
from cpt_bench.trainers.base import TRLTrainer
from cpt_bench.trainers.config import TRLConfig
from cpt_bench.trainers.log import StageLog
from cpt_bench.trainers.parts.part import Part, joined
from cpt_bench.trainers.policy import load, pass_on, quick_path, save
from cpt_bench.trainers.rows import chat_row, dataset


class SFT(TRLTrainer):
    """Supervised fine-tuning on gold answers, with TRL's SFTTrainer.

    Attributes:
        completion_only: Whether the loss covers the completion of a row alone.
    """

    completion_only: ClassVar[bool] = True

    class Config(TRLConfig):
        """Settings of :class:`SFT`.

        Attributes:
            batch_size: Samples in a batch of one process.
        """

        batch_size: int = Field(default=32, ge=1)

    def train(self, stage: Stage) -> None:
        model, processor = load(stage, self.config)
        log = StageLog(stage, self.config.batch_size)
        stage, parts = self.begin(stage, model, log)
        if not stage.samples:
            return pass_on(model, processor, stage, "nothing passed the filter")
        with tempfile.TemporaryDirectory() as scratch:
            trainer = self.build(stage, parts, model, processor, Path(scratch))
            self.learn(trainer, stage, parts, log)
            save(trainer, processor, stage)

    def build(
        self, stage: Stage, parts: Sequence[Part], model: Any, processor: Any, scratch: Path
    ) -> AnswersSFT:
        """TRL's trainer for the stage, with the penalties of ``parts`` in its loss."""
        arguments = SFTConfig(
            **self.config.arguments(stage, scratch, self.config.batch_size),
            per_device_train_batch_size=self.config.batch_size,
            max_length=None,  # cutting a prompt would cut its image tokens
            completion_only_loss=self.completion_only,
            remove_unused_columns=False,  # a row has other columns than the data set
        )
        trainer = joined(AnswersSFT, parts)(
            model=model,
            args=arguments,
            processing_class=processor,
            train_dataset=dataset(stage.samples, self.row),
            peft_config=self.config.adapters(),
        )
        # Every answer token weighs the same, however a batch is divided. Qwen2.5-VL's class makes
        # transformers' Trainer skip counting a step's tokens over micro-batches and processes; but
        # TRL's loss, which is the one used here, divides by that count.
        trainer.model_accepts_loss_kwargs = True
        if not self.needs_trl_loss(parts):
            trainer.quick = quick_path(trainer)
        return trainer  # type: ignore[no-any-return]

    def row(self, sample: TrainSample) -> dict[str, Any]:
        """A sample in TRL's conversational form: by default prompt, gold answer and images."""
        return chat_row(sample, sample.target)
