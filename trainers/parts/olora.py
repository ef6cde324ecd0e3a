"""O-LoRA: each task's adapter learns in a subspace that is orthogonal to those before.

Wang et al. 2023, "Orthogonal Subspace Learning for Language Model Continual Learning" (arXiv
2310.14152). The rows of a LoRA layer's A_t (rank x inputs) span the subspace its update lives in;
the paper requires A_i A_t^T = 0 for all earlier tasks i, and relaxes this to the penalty

    olora_weight * sum_{i<t} sum_{jk} | (A_i A_t^T)_jk |

(its loss L_orth; the authors' code uses weight 0.5 and this sum of absolute values), which is
``penalty``. ``project`` is the constraint itself: after every step A_t is projected onto the
complement of the earlier subspaces, so that they are orthogonal at any learning rate. Adapters are
merged into the weights when their stage ends, as the paper does for its deployment; the checkpoint
has no extra weights and needs no task identity. ``stage.state`` holds the earlier A_i.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from cpt_bench.errors import CptBenchError
from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.policy import bare

STORE = "olora.safetensors"


class OLoRA(Part):
    """Makes this stage's adapters orthogonal to those of earlier stages."""

    penalises = True

    def attach(self, trainer: Any) -> None:
        file = self.stage.state / STORE
        device = str(trainer.accelerator.device)
        self.earlier = load_file(file, device=device) if file.exists() else {}
        self.layers = downward(bare(trainer))
        if self.config.olora == "project":
            self.bases = {name: basis(self.earlier[name]) for name in self.earlier}
            self._check_room()
            self.project()
            trainer.add_callback(_AfterSteps(self.project))

    def _check_room(self) -> None:
        for name, weight in self.layers.items():
            rank, inputs = weight.shape
            taken = self.bases[name].shape[1] if name in self.bases else 0
            if taken + rank > inputs:
                raise CptBenchError(
                    f"{name} has {inputs} inputs, and earlier tasks use {taken} of them: "
                    f"no room for rank {rank}",
                    where=f"stage {self.stage.index} ({self.stage.task})",
                    todo="Lower lora_rank, or use olora=penalty",
                )

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def project(self) -> None:
        """Remove from each A its component in the earlier subspaces."""
        for name, weight in self.layers.items():
            if name in self.bases:
                q = self.bases[name]
                weight -= (weight @ q) @ q.T

    def penalty(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        if self.config.olora != "penalty" or not self.earlier:
            return None
        overlaps = [(self.earlier[n] @ a.T).abs().sum() for n, a in self.layers.items()]
        return self.config.olora_weight * torch.stack(overlaps).sum()

    def finish(self, trainer: Any) -> None:
        if not trainer.args.should_save:
            return
        rows = {
            name: torch.cat([*([self.earlier[name]] if name in self.earlier else []), a.detach()])
            for name, a in self.layers.items()
        }
        save_file({n: r.cpu().contiguous() for n, r in rows.items()}, self.stage.state / STORE)


def downward(model: Any) -> dict[str, torch.Tensor]:
    """The A of each LoRA layer, shape (rank, inputs), by the layer's name."""
    return {
        name: module.lora_A["default"].weight
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def basis(rows: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis, as columns, of the space that ``rows`` (n, inputs) span."""
    # In float64, so that a projection leaves no rounding in the earlier subspaces.
    _, sizes, directions = torch.linalg.svd(rows.double(), full_matrices=False)
    spanned = sizes > sizes.max() * 1e-6
    return directions[spanned].T.to(rows.dtype)


class _AfterSteps(TrainerCallback):  # type: ignore[misc]
    """Acts after every optimiser step."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.act()
