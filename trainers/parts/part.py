"""How a trainer meets its parts.

SFT and RFT do the same with each part, in this order: :meth:`Part.mix` may add training samples,
:meth:`Part.attach` sees TRL's trainer before its first step, :meth:`Part.penalty` is added to the
loss of every batch, :meth:`Part.finish` sees the trained model before it is saved. Without parts
TRL's own trainer runs, untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.parts.settings import PartSettings


class Part:
    """Something that combines with SFT and with RFT; by itself it changes nothing.

    Args:
        config: The trainer's settings.
        stage: The stage, with the task's own samples.
    """

    penalises = False
    """Whether :meth:`penalty` says anything; one that does not costs no step."""

    once = False
    """Whether it looks at weights alone: then a step's last batch is asked, for the whole step."""

    def __init__(self, config: Any, stage: Stage) -> None:
        self.config, self.stage = config, stage

    def mix(self, samples: Sequence[TrainSample]) -> Sequence[TrainSample]:
        """What to learn from, given what would be learned from without this part."""
        return samples

    def attach(self, trainer: Any) -> None:
        """Look at TRL's trainer, built and not yet started."""

    def penalty(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """A scalar to add to the loss of the batch ``inputs``, after the model has seen it."""
        return None

    def finish(self, trainer: Any) -> None:
        """Take along what later stages need; the model is trained and not yet saved."""


def parts_of(config: PartSettings, stage: Stage) -> list[Part]:
    """The parts that ``config`` switches on."""
    from cpt_bench.trainers.parts.ewc import EWC
    from cpt_bench.trainers.parts.lwf import LwF
    from cpt_bench.trainers.parts.olora import OLoRA
    from cpt_bench.trainers.parts.replay import Replay

    switched: list[tuple[bool, type[Part]]] = [
        (config.replay > 0, Replay),
        (config.ewc > 0, EWC),
        (config.lwf > 0, LwF),
        (config.olora != "off", OLoRA),
    ]
    return [part(config, stage) for on, part in switched if on]


def joined(trainer_class: type[Any], parts: Sequence[Part]) -> type[Any]:
    """``trainer_class`` with the parts' penalties in its loss; itself where there are none."""
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
    """What a penalty is divided by, so that it counts once an optimiser step.

    transformers adds up the losses of a step's batches. Where the loss is already scaled for that
    (by TRL's GRPO, or because it divides by the step's tokens) a further term must be too;
    elsewhere (RLOO) transformers divides.
    """
    scaled = trainer.loss_is_scaled_for_ga
    if scaled is None:
        scaled = trainer.compute_loss_func is not None or (
            trainer.model_accepts_loss_kwargs and num_items is not None
        )
    return int(trainer.current_gradient_accumulation_steps) if scaled else 1


def bare(trainer: Any) -> Any:
    """The transformers model that is trained: without wrappers, with its adapters' layers."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
