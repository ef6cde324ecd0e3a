"""FLOW: SFT that weighs each sample by how easy it was for the model before fine-tuning.

Sanyal et al. 2025, "Upweighting Easy Samples in Fine-Tuning Mitigates Forgetting" (arXiv
2502.02797, algorithm 1): with f_i(theta_0) the loss of sample i under the model before fine-tuning,

    w_i = exp(-f_i(theta_0) / tau),      tau = median_i f_i(theta_0),

and sum_i w_i f_i(theta) is minimised. As in the authors' code for language models: f_i is the mean
over the answer's tokens, the weights are *not* normalised (the median sample weighs 1/e), and a
batch's weighted token losses are divided by its number of tokens. theta_0 is the policy of the
task's start.

The samples that a stage will learn are drawn first, so that only their losses are computed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cpt_bench.models import batches
from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.config import TRLConfig
from cpt_bench.trainers.log import StageLog
from cpt_bench.trainers.policy import evaluating, training_processor
from cpt_bench.trainers.rollouts import encoded, losses
from cpt_bench.trainers.sft import SFT

BATCH = 32
"""Samples in a batch on a CPU; on a GPU, where pictures are large, a batch is one sample."""


class FLOW(SFT):
    """SFT with weights from the losses of the task's start policy."""

    hooks_model = True  # the weights go between the model and TRL's loss

    def select(self, stage: Stage, model: Any, log: StageLog) -> Sequence[TrainSample]:
        samples = list(stage.samples)
        draws = self.config.prompts_in_stage(stage, self.config.batch_size)
        if draws is not None and draws < len(samples):
            samples = random.Random(stage.seed).sample(samples, draws)
        found = sample_losses(model.to(self.config.place()), stage, self.config, samples)
        self.weights = {_key(s): w for s, w in zip(samples, weights(found), strict=True)}
        return samples

    def adjust(self, trainer: Any, stage: Stage, log: StageLog) -> None:
        of_sample = [self.weights[_key(s)] for s in stage.samples]
        trainer.data_collator = _Collator(trainer.data_collator, of_sample)
        weigh(trainer)


def _key(sample: TrainSample) -> tuple[str, str]:
    return sample.task, sample.id


WEIGHT = "weight"


def weights(losses: Sequence[float]) -> list[float]:
    """exp(-loss / median), sample by sample; 1 for all where the median is 0."""
    tau = float(np.median(losses))
    if tau <= 0:
        return [1.0] * len(losses)
    return [float(w) for w in np.exp(-np.asarray(losses) / tau)]


@torch.no_grad()  # type: ignore[untyped-decorator]
def sample_losses(
    model: Any, stage: Stage, config: TRLConfig, samples: Sequence[TrainSample]
) -> list[float]:
    """The mean negative log-probability of each sample's target tokens, in nats."""
    collate = encoded(training_processor(stage, config))
    found: dict[int, float] = {}
    pictures = [len(sample.image_files) for sample in samples]
    size = BATCH if model.device.type == "cpu" else 1
    with evaluating(model):
        for batch in batches.of_equal_pictures(pictures, [0] * len(samples), size):
            pairs = [(samples[i], samples[i].target) for i in batch]
            token, answer = losses(model, collate(pairs))
            mean = token.sum(dim=1) / answer.sum(dim=1)
            found |= dict(zip(batch, mean.tolist(), strict=True))
    return [found[i] for i in range(len(samples))]


class _Collator:
    """TRL's collator, which adds each sample's weight to the batch."""

    def __init__(self, inner: Any, of_sample: Sequence[float]) -> None:
        self.inner, self.of_sample = inner, of_sample

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        each = torch.tensor([self.of_sample[example["sample"]] for example in examples])
        return {**self.inner(examples), WEIGHT: each}


def weigh(trainer: Any) -> None:
    """Make ``trainer`` multiply the token losses of each sample by its weight in the batch."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    now: list[torch.Tensor] = []
    compute = trainer.compute_loss

    def compute_loss(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        now[:] = [inputs.pop(WEIGHT)]
        return compute(model, inputs, *args, **kwargs)

    def scaled(module: Any, args: Any, output: Any) -> Any:
        if now and getattr(output, "log_probs", None) is not None:
            output.log_probs = output.log_probs * now.pop().unsqueeze(1)
        return output

    trainer.compute_loss = compute_loss
    model.register_forward_hook(scaled)
