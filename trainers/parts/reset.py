"""Resets between two tasks, which give a model back its ability to learn: ReDo and FIRE.

Both are reported as baselines by "Continual Reasoning Gym" (arXiv 2608.18574), in whose code they
are applied when a task begins, from the second on. They follow that code.

``redo`` (Sokar et al. 2023, "The Dormant Neuron Phenomenon", arXiv 2302.12902): the score of unit
i of a gated layer is the mean of |h_i| over the tokens of ``REDO_SAMPLES`` prompts of the task
before, divided by the mean score of its layer. Units with a score of at most ``reset_threshold``
are dormant: the weights into them are drawn anew (uniform, Kaiming's bound for fan-in and ReLU),
and those out of them are set to 0, so that the model's outputs do not change by their new weights.
They are measured when a task ends, so that no old prompt is needed afterwards.

``fire``: each query and key projection W of the language model becomes the orthogonal matrix
nearest to it, times sqrt(rows / columns): five Newton-Schulz steps X <- 1.5 X - 0.5 X X^T X from
W / |W|. Values, outputs and the other layers stay as they are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.policy import bare, evaluating, training_processor
from cpt_bench.trainers.rollouts import encoded

STORE = "dormant.safetensors"
REDO_SAMPLES = 8
STEPS = 5
"""Newton-Schulz steps of FIRE."""


class ReDo(Part):
    """Initialises the dormant units of the gated layers again when a task begins."""

    def attach(self, trainer: Any) -> None:
        file = self.stage.state / STORE
        if not file.exists():
            return
        dormant = load_file(file)
        noise = torch.Generator().manual_seed(self.stage.seed)
        for name, block in gated(bare(trainer)):
            revive(block, dormant[name], noise)

    def finish(self, trainer: Any) -> None:
        if not trainer.args.should_save:
            return
        model, samples = bare(trainer), list(self.stage.samples)
        few = random.Random(self.stage.seed).sample(samples, min(REDO_SAMPLES, len(samples)))
        collate = encoded(training_processor(self.stage, self.config))
        batch = collate([(sample, sample.target) for sample in few])
        scores = activity(model, {k: v for k, v in batch.items() if k != "labels"})
        dormant = {n: s <= self.config.reset_threshold for n, s in scores.items()}
        save_file(dormant, self.stage.state / STORE)


class Fire(Part):
    """Makes queries' and keys' projections orthogonal when a task begins, from the second on."""

    def attach(self, trainer: Any) -> None:
        if self.stage.index > 1:
            orthogonalise(bare(trainer))


def gated(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers down(act(gate(x)) * up(x)) of a model, by name."""
    for name, module in model.named_modules():
        if all(hasattr(module, part) for part in ("gate_proj", "up_proj", "down_proj")):
            yield name, module


@torch.no_grad()  # type: ignore[untyped-decorator]
def activity(model: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Each gated layer's units' mean |h| over the batch's tokens, over the layer's mean."""
    found: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, args: Any) -> None:
            size = args[0].detach().abs().float()
            found[name] = size.reshape(-1, size.shape[-1]).mean(dim=0).cpu()

        return hook

    hooks = [b.down_proj.register_forward_pre_hook(watch(n)) for n, b in gated(model)]
    try:
        with evaluating(model):
            model(**{k: v.to(model.device) for k, v in batch.items()}, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: score / (score.mean() + 1e-9) for name, score in found.items()}


@torch.no_grad()  # type: ignore[untyped-decorator]
def revive(block: Any, dormant: torch.Tensor, noise: torch.Generator) -> None:
    """Initialise the weights into a gated layer's dormant units again; zero those out of them."""
    for layer in (block.gate_proj, block.up_proj):
        bound = math.sqrt(3) * math.sqrt(2) / math.sqrt(layer.weight.shape[1])
        for weight, limit in (
            (layer.weight, bound),
            (layer.bias, 1 / math.sqrt(layer.in_features)),
        ):
            if weight is not None:
                fresh = (2 * torch.rand(weight.shape, generator=noise) - 1) * limit
                weight[dormant] = fresh[dormant].to(weight)
    block.down_proj.weight[:, dormant] = 0


@torch.no_grad()  # type: ignore[untyped-decorator]
def orthogonalise(model: Any) -> None:
    """FIRE's reset of every query and key projection."""
    for name, module in model.named_modules():
        if name.split(".")[-1] in ("q_proj", "k_proj") and hasattr(module, "weight"):
            rows, columns = module.weight.shape
            nearest = newton_schulz(module.weight.float())
            module.weight.copy_(nearest * math.sqrt(rows / columns))


def newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """A few steps from ``matrix`` over its norm towards the nearest orthogonal matrix."""
    x = matrix.T if matrix.shape[1] > matrix.shape[0] else matrix
    x = x / x.norm()
    for _ in range(STEPS):
        x = 1.5 * x - 0.5 * x @ (x.T @ x)
    return x.T if matrix.shape[1] > matrix.shape[0] else x
