"""Elastic weight consolidation: change little the weights that earlier tasks depend on.

Kirkpatrick et al. 2017 (arXiv 1612.00796, eq. 3), in the online form of Schwarz et al. 2018
("Progress & Compress", arXiv 1805.06370, section 3.2): while task t is learned, the penalty is

    ewc / 2 * sum_i F_i (theta_i - theta*_i)^2,      F <- ewc_decay * F + F^(t),

with theta* the weights at the stage's start and F^(t)_i the mean over prompts x of task t of
(d ln p(y | x) / d theta_i)^2, y a reply drawn from the trained policy: the diagonal of its true
Fisher information, however it was trained, so that it means the same under SFT and under RFT. One
anchor and one F serve all tasks; F is stored in ``stage.state``. The first stage has no penalty.

With adapters, theta_i - theta*_i is their product, and F covers the weights they change. F is as
large as those weights in float32, so it stays in main memory, and only the part of a layer whose
term is being computed is on the GPU.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint

from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.config import TRLConfig
from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.policy import bare, evaluating, training_processor
from cpt_bench.trainers.rollouts import Rollouts, encoded, losses

STORE = "ewc.safetensors"


class EWC(Part):
    """The quadratic penalty, and the Fisher information of the task that was learned."""

    penalises = once = True

    def attach(self, trainer: Any) -> None:
        self.model = bare(trainer)
        file = self.stage.state / STORE
        self.fisher: dict[str, torch.Tensor] = load_file(file) if file.exists() else {}
        self.anchor = {} if adapted(self.model) else start(self.model, self.fisher)

    def penalty(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        def term(name: str, moved: Callable[[], torch.Tensor]) -> torch.Tensor:
            change = moved()
            return (self.fisher[name].to(change.device) * change.square()).sum()

        # Recomputed in the backward pass: the changes of all layers at once would fill the GPU.
        terms = [
            checkpoint(term, name, moved, use_reentrant=False, preserve_rng_state=False)
            for name, moved in deviations(self.model, self.anchor)
            if name in self.fisher
        ]
        return self.config.ewc / 2 * torch.stack(terms).sum() if terms else None

    def finish(self, trainer: Any) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        wanted = None
        if names := adapted(self.model):
            wanted, model = set(names), model.merge_and_unload()
        samples = list(self.stage.samples)
        picked = random.Random(self.stage.seed).sample(
            samples, min(self.config.ewc_samples, len(samples))
        )
        latest = fisher(model, self.stage, self.config, picked, wanted)
        if trainer.args.should_save:
            total = consolidated(self.fisher, latest, self.config.ewc_decay)
            save_file(total, self.stage.state / STORE)


def adapted(model: Any) -> list[str]:
    """The weights that adapters change, by name in the model without them."""
    return [f"{name}.weight" for name, module in model.named_modules() if hasattr(module, "lora_A")]


def start(model: Any, names: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Copies of the weights in ``names`` as they are now."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if n in names}


def deviations(
    model: Any, anchor: dict[str, torch.Tensor]
) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """The name of each weight, and a function that computes its change since the stage's start."""
    if anchor:
        for name, p in model.named_parameters():
            if name in anchor:
                yield name, partial(torch.sub, p, anchor[name])
        return
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            yield f"{name}.weight", partial(module.get_delta_weight, "default")


def consolidated(
    before: dict[str, torch.Tensor], latest: dict[str, torch.Tensor], decay: float
) -> dict[str, torch.Tensor]:
    """``decay * before + latest``, weight by weight."""
    total = {n: decay * before[n] + f if n in before else f for n, f in latest.items()}
    return {name: value.contiguous() for name, value in total.items()}


def fisher(
    model: Any,
    stage: Stage,
    config: TRLConfig,
    samples: list[TrainSample],
    wanted: set[str] | None = None,
) -> dict[str, torch.Tensor]:
    """The diagonal Fisher information of ``model`` on the prompts of ``samples``.

    Args:
        model: A transformers model; its weights do not change.
        stage: Its processor, longest reply and seed are used.
        config: The trainer's settings, among them the size of pictures.
        samples: One reply is drawn to each.
        wanted: The weights, by name; None for all.

    Returns:
        Name to the mean squared gradient of a reply's log-probability, in float32 on the CPU.
    """
    drawn = Rollouts(model, stage, config).draw(samples, 1, seed=stage.seed)
    collate = encoded(training_processor(stage, config))
    weights = {n: p for n, p in model.named_parameters() if wanted is None or n in wanted}
    total = {n: torch.zeros(p.shape) for n, p in weights.items()}
    for p in weights.values():
        p.requires_grad_(True)
    with evaluating(model):
        for sample, (reply,) in zip(samples, drawn, strict=True):
            with torch.enable_grad():
                logp = -losses(model, collate([(sample, reply)]))[0].sum()
                grads = torch.autograd.grad(logp, list(weights.values()), allow_unused=True)
            for value, grad in zip(total.values(), grads, strict=True):
                if grad is not None:
                    value += grad.detach().float().square().cpu() / len(samples)
    return total
