"""CPO: hold the weights that earlier tasks moved most where the last task left them.

Luo et al. 2026, "RL Forgets! Towards Continual Policy Optimization" (arXiv 2607.04364), as in the
authors' code. When a task is learned, R_n of each weight tensor n are the ``cpo_share`` of its
elements (rounded down) that moved most since the task's start, without those that did not move;
R_n is joined with that of the tasks before. While the next task is learned the penalty is

    cpo * sum_n 1/|R_n| * sum_{i in R_n} | theta_i - theta*_i |,

theta* the weights at the stage's start. The first stage has none. Their policy gradient is GSPO's
(``ratio=sequence`` with clipping at 3e-4 and 4e-4), their weight 100 and their share 0.1; here it
works under any loss. ``stage.state`` holds R, one bit a weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.policy import bare

STORE = "cpo.safetensors"


class CPO(Part):
    """The penalty on moving what earlier tasks moved most, and what this task moved most."""

    penalises = once = True

    def attach(self, trainer: Any) -> None:
        self.weights = dict(bare(trainer).named_parameters())
        file = self.stage.state / STORE
        packed = load_file(file) if file.exists() else {}
        self.moved = {n: unpacked(bits, self.weights[n].numel()) for n, bits in packed.items()}
        self.start = {n: p.detach().cpu().clone() for n, p in self.weights.items()}
        self.held = {n: m.view(self.weights[n].shape).to(self.weights[n].device)
                     for n, m in self.moved.items()}  # fmt: skip
        self.anchor = {n: self.weights[n].detach()[mask] for n, mask in self.held.items()}

    def penalty(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        terms = [
            (self.weights[name][mask] - self.anchor[name]).abs().mean()
            for name, mask in self.held.items()
        ]
        return self.config.cpo * torch.stack(terms).sum() if terms else None

    def finish(self, trainer: Any) -> None:
        if not trainer.args.should_save:
            return
        total = {}
        for name, weight in self.weights.items():
            change = weight.detach().cpu().float() - self.start[name].float()
            mask = most_moved(change, self.config.cpo_share)
            if name in self.moved:
                mask |= self.moved[name]
            if mask.any():
                total[name] = torch.from_numpy(np.packbits(mask.numpy()))
        save_file(total, self.stage.state / STORE)


def most_moved(change: torch.Tensor, share: float) -> torch.Tensor:
    """Which elements are among the ``share`` of largest absolute change, flat; none of 0."""
    size = change.abs().flatten()
    mask = torch.zeros(len(size), dtype=torch.bool)
    top = torch.topk(size, int(len(size) * share), sorted=False)
    mask[top.indices[top.values > 0]] = True
    return mask


def unpacked(bits: torch.Tensor, n: int) -> torch.Tensor:
    """The ``n`` booleans that eight to a byte were packed into ``bits``."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=n).astype(bool))
