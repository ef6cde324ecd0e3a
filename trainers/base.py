"""The base of SFT and RFT: their parts, and the order of what happens in a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from cpt_bench.trainer import Needs, Privileges, Stage, Trainer, TrainSample
from cpt_bench.trainers.log import StageLog, replace_printing
from cpt_bench.trainers.muon import Muon
from cpt_bench.trainers.parts.choice import parts_of
from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.resuming import train


class TRLTrainer(Trainer):
    """A method on TRL: it may choose what to learn from, change TRL's trainer, and take parts.

    Attributes:
        hooks_model: Whether the method hooks into the model's forward pass. Then the loss is TRL's
            own, for which the model computes all tokens of a batch, on a CPU too.
        resumes: Whether an interrupted stage can go on from a saved state: what the method knows
            is in the weights, the optimiser and the stage. Otherwise it starts the stage again.
    """

    hooks_model: ClassVar[bool] = False
    resumes: ClassVar[bool] = True

    @classmethod
    def declare(cls, config: Any) -> Privileges:
        return config.declared(cls.privileges)  # type: ignore[no-any-return]

    @classmethod
    def needs(cls, config: Any) -> Needs:
        return config.needs()  # type: ignore[no-any-return]

    def select(self, stage: Stage, model: Any, log: StageLog) -> Sequence[TrainSample]:
        """The samples to learn from, out of ``stage.samples``.

        A method that lets the policy answer prompts for this adds their number to ``log.asked``:
        they count as drawn.
        """
        return stage.samples

    def adjust(self, trainer: Any, stage: Stage, log: StageLog) -> None:
        """Change TRL's trainer before its first step; by default nothing is changed."""

    def begin(self, stage: Stage, model: Any, log: StageLog) -> tuple[Stage, list[Part]]:
        """The stage with the samples to learn from and the budget that is left; and its parts."""
        if stage.save_every is not None and not self.resumes:
            stage.tell(
                f"stage {stage.index} ({stage.task}): if interrupted, this method starts again"
            )
            stage = replace(stage, save_every=None, resume=None)
        parts = parts_of(self.config, stage)
        samples = stage.samples
        for part in parts:
            samples = part.mix(samples)
        stage = replace(stage, samples=samples)
        stage = replace(stage, samples=self.select(stage, model, log))
        if log.asked:
            log.log_asked(len(stage.samples))
            if stage.budget.samples is not None:
                left = stage.budget.samples - log.asked
                stage = replace(stage, budget=stage.budget.model_copy(update={"samples": left}))
        return stage, parts

    def needs_trl_loss(self, parts: Sequence[Part]) -> bool:
        """Whether the method or a part hooks into the model, so that TRL's own loss has to run."""
        return self.hooks_model or any(part.hooks_model for part in parts)

    def learn(self, trainer: Any, stage: Stage, parts: Sequence[Part], log: StageLog) -> None:
        """Run TRL's ``trainer``, with the method's adjustments and the parts."""
        self.adjust(trainer, stage, log)
        if self.config.optimizer == "muon":
            named = trainer.model.named_parameters()
            config = self.config
            trainer.optimizer = Muon(named, config.learning_rate, config.weight_decay)
        for part in parts:
            part.attach(trainer)
        self.before_first_step(trainer, stage, log)
        replace_printing(trainer, log)
        train(trainer, stage, log)
        for part in parts:
            part.finish(trainer)

    def before_first_step(self, trainer: Any, stage: Stage, log: StageLog) -> None:
        """Check or watch TRL's trainer once everything is attached; by default nothing is done."""
