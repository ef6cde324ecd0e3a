"""Learning without forgetting: stay close to an earlier policy's answers to the *new* questions.

Li & Hoiem 2016 (arXiv 1606.09282, eq. 2 and 3): a distillation term, on the new task's inputs,
between the old network's outputs and the new one's, softened by a temperature T = 2. For a language
model the outputs are next-token distributions, so that the penalty is

    lwf * T^2 * mean over tokens of KL( softmax(z_old / T) || softmax(z / T) ),

at each position whose token is trained on: of the gold answer under SFT, of the rollouts under RFT.
T^2 makes the gradient's size independent of T (Hinton et al. 2015, arXiv 1503.02531). The old
policy is the task's start, or with ``reference: base`` the run's base model. At T = 1 this is the
forward KL to that policy, exact over the whole vocabulary; RFT's own ``kl`` is the reverse one,
estimated on the tokens drawn.
"""

from __future__ import annotations

from typing import Any

import torch

from cpt_bench.trainers.parts.frozen import Frozen, reference_policy
from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.policy import bare


class LwF(Part):
    """Distillation from the frozen reference policy, at the positions that are trained on."""

    penalises = True
    # TRL computes the loss without building logits. So a hook takes the input and the output of the
    # backbone, and only the trained positions go through the head.
    hooks_model = True

    def attach(self, trainer: Any) -> None:
        self.model = bare(trainer)
        self.autocast = trainer.accelerator.autocast
        self.frozen = Frozen(trainer, self.config, reference_policy(self.config, self.stage))
        self.seen: tuple[dict[str, Any], torch.Tensor] | None = None
        self.model.base_model.register_forward_hook(self._catch, with_kwargs=True)

    def _catch(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if torch.is_grad_enabled():
            self.seen = (kwargs, output.last_hidden_state)

    def penalty(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        assert self.seen is not None
        (given, hidden), self.seen = self.seen, None
        mask = trained_positions(inputs)
        with self.frozen.policy() as old, self.autocast():
            states = old.base_model(**given).last_hidden_state[:, :-1][mask]
            target = old.get_output_embeddings()(states)
        ours = self.model.get_output_embeddings()(hidden[:, :-1][mask])
        divergence = distillation(ours, target, self.config.lwf_temperature)
        return self.config.lwf * divergence


def distillation(ours: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """``T^2`` times the mean over rows of KL(softmax(target / T) || softmax(ours / T)).

    Args:
        ours: Logits of shape (tokens, words).
        target: Logits of the policy to stay close to, in the same shape.
        temperature: T.
    """
    if not len(ours):
        return ours.sum()
    log_p = torch.log_softmax(target.float() / temperature, dim=-1)
    log_q = torch.log_softmax(ours.float() / temperature, dim=-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


def trained_positions(inputs: dict[str, Any]) -> torch.Tensor:
    """Which positions predict a token that is trained on, shape (batch, length - 1), boolean.

    Args:
        inputs: A batch of SFT (``labels``) or of RFT (``prompt_mask`` and ``completion_mask``).
    """
    if "labels" in inputs:
        return inputs["labels"][:, 1:] != -100
    prompt, completion = inputs["prompt_mask"], inputs["completion_mask"]
    return torch.cat([torch.zeros_like(prompt), completion], dim=1)[:, 1:].bool()
