"""What a part is, and how its penalty gets into TRL's loss.

SFT and RFT call each part in this order: :meth:`Part.mix` may add training samples,
:meth:`Part.attach` gets TRL's trainer before its first step, :meth:`Part.penalty` is added to the
loss of every batch, :meth:`Part.finish` gets the trained model before it is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from cpt_bench.trainer import Stage, TrainSample


class Part:
    """The base of all parts, which changes nothing.

    Args:
        config: The trainer's settings.
        stage: The stage, with the task's own samples.

    Attributes:
        penalises: Whether the part has a :meth:`penalty`.
        once: Whether the penalty depends on the weights alone: then it is computed on the last
            batch of a step, for the whole step.
        hooks_model: Whether the part hooks into the model's forward pass. Then the loss is TRL's
            own, for which the model computes all tokens of a batch, on a CPU too.
    """

    penalises: ClassVar[bool] = False
    once: ClassVar[bool] = False
    hooks_model: ClassVar[bool] = False

    def __init__(self, config: Any, stage: Stage) -> None:
        self.config, self.stage = config, stage

    def mix(self, samples: Sequence[TrainSample]) -> Sequence[TrainSample]:
        """The samples to learn from; ``samples`` are those without this part."""
        return samples

    def attach(self, trainer: Any) -> None:
        """Prepare for the stage with TRL's trainer, which is built and not yet started."""

    def penalty(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """A scalar to add to the loss of the batch ``inputs``, after the model has seen it."""
        return None

    def graded(self, samples: Sequence[TrainSample], accuracies: Sequence[float]) -> None:
        """Under RFT: the accuracy of each reply that was written, and the samples asked."""

    def finish(self, trainer: Any) -> None:
        """Store what later stages need; the model is trained and not yet saved."""


def joined(trainer_class: type[Any], parts: Sequence[Part]) -> type[Any]:
    """``trainer_class`` with the parts' penalties in its loss; unchanged where there are none."""
    if not any(part.penalises for part in parts):
        return trainer_class

    class Joined(trainer_class):  # type: ignore[misc]
        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            for part in parts:
                if part.once and not self.accelerator.sync_gradients:
                    continue
                term = part.penalty(inputs)
                if term is not None:
                    of = self.current_gradient_accumulation_steps if part.once else 1
                    loss = loss + of * term / _batches_a_step(self, num_items_in_batch)
                    name = type(part).__name__.lower()
                    self._metrics["train"][f"{name}_penalty"].append(float(term.detach()))
            return loss

    Joined.__name__ = trainer_class.__name__
    return Joined


def _batches_a_step(trainer: Any, num_items: Any) -> int:
    """The divisor of a penalty that makes it count once in each optimiser step.

    transformers adds up the losses of a step's batches. Where the loss is already scaled for that
    (by TRL's GRPO, or because it divides by the step's tokens), the penalty has to be as well;
    elsewhere (RLOO) transformers divides.
    """
    scaled = trainer.loss_is_scaled_for_ga
    if scaled is None:
        scaled = trainer.compute_loss_func is not None or (
            trainer.model_accepts_loss_kwargs and num_items is not None
        )
    return int(trainer.current_gradient_accumulation_steps) if scaled else 1
