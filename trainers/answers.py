"""On a CPU, supervised fine-tuning computes what its loss looks at: the answers' tokens.

Stock TRL carries every token of a prompt through the last layer and the head. Here a prompt's
tokens give their keys and values there, and no more; the loss is the same sum.
"""

from __future__ import annotations

from typing import Any

import torch

from cpt_bench.models.qwen_cpu.decoding import score_ends
from cpt_bench.trainers.shared import on_one_cpu


class AnswersAlone:
    """Mixin for TRL's SFTTrainer; elsewhere than on one CPU process it is idle."""

    apart = False
    """Whether TRL's own loss is wanted: a part or a method looks at what the model gives."""

    def lean(self: Any) -> bool:
        return self.args.loss_type == "nll" and not self.apart and on_one_cpu(self)

    def compute_loss(
        self: Any,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if return_outputs or not self.lean():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        told = score_ends(model, *aligned(inputs))
        tokens = int((inputs["labels"] != -100).sum())
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        figures = self._metrics["train"]
        figures["entropy"].append(float(told.entropies.sum()) / tokens)
        figures["mean_token_accuracy"].append(float(told.first.sum()) / tokens)
        figures["num_tokens"] = [self._total_train_tokens]
        return -told.logps.sum() / (tokens if num_items_in_batch is None else num_items_in_batch)


def aligned(inputs: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """TRL's batch with all answers beginning in one column.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and ``labels`` (rows, length), -100 for what is
            no answer, and the pictures' fields. An answer is what a row ends with.

    Returns:
        The same as the model takes it, prompts padded on the left and answers on the right; how
        many columns the answers take.
    """
    answer = inputs["labels"] != -100
    begin, length = answer.int().argmax(dim=1, keepdim=True), int(answer.sum(1).max())
    places = begin + torch.arange(-int(begin.max()), length)
    inside = (places >= 0) & (places < answer.shape[1])
    places = places.clamp(0, answer.shape[1] - 1)
    shifted = {
        name: inputs[name].gather(1, places) * inside
        for name in ("input_ids", "attention_mask", "mm_token_type_ids")
        if name in inputs
    }
    pictures = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    return shifted | pictures, length
