"""On the quick path, supervised fine-tuning computes only what its loss needs: the answers' tokens.

TRL carries every token of a prompt through the last layer and the head. Here the last layer makes
only keys and values of a prompt's tokens. The loss is the same sum.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTTrainer

from cpt_bench.models.quick import QuickModel
from cpt_bench.trainers.resuming import Resumed


class AnswersSFT(Resumed, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, which computes its loss on a quick path where it has been given one."""

    quick: QuickModel | None = None
    """The quick path of the model that is trained; None: TRL's own loss."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if self.quick is None or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        scores = self.quick.score_answers(*aligned(inputs))
        tokens = int((inputs["labels"] != -100).sum())
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        figures = self._metrics["train"]
        figures["entropy"].append(float(scores.entropies.sum()) / tokens)
        figures["mean_token_accuracy"].append(float(scores.likeliest.sum()) / tokens)
        figures["num_tokens"] = [self._total_train_tokens]
        return -scores.logps.sum() / (tokens if num_items_in_batch is None else num_items_in_batch)


def aligned(inputs: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """TRL's batch with all answers beginning in one column.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and ``labels`` (rows, length), and the fields of
            the pictures. Labels are -100 except for the answer, which ends a row.

    Returns:
        The same as the model takes it, prompts padded on the left and answers on the right; and
        how many columns the answers take.
    """
    answer = inputs["labels"] != -100
    begin, length = answer.int().argmax(dim=1, keepdim=True), int(answer.sum(1).max())
    places = begin + torch.arange(-int(begin.max()), length)
    inside = (places >= 0) & (places < answer.shape[1])
    places = places.clamp(0, answer.shape[1] - 1)
    shifted: dict[str, Any] = {
        name: inputs[name].gather(1, places) * inside
        for name in ("input_ids", "attention_mask", "mm_token_type_ids")
        if name in inputs
    }
    pictures = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    return shifted | pictures, length
