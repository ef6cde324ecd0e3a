"""On a CPU, a prompt's rollouts share it: it is read once, for writing them and for learning.

Eight rollouts of a prompt repeat its picture and its words eight times in stock TRL. Here the
prompt is read once a batch, and every reply goes on from its keys and values, with gradients
through them. Rollouts whose advantage is 0 give no gradient; they are read without keeping what a
backward pass needs. Losses and gradients are the same arithmetic, summed in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from cpt_bench.models.qwen_cpu.decoding import decode, fits, read, sampler, score
from cpt_bench.trainers.common import processes


class Prompts(NamedTuple):
    """A batch's prompts as the model takes them, each row once, padded on the left.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask`` (rows, length), and where there are pictures
            ``mm_token_type_ids``, ``pixel_values`` (patches, features), ``image_grid_thw``.
        images: How many pictures each row has.
    """

    inputs: dict[str, torch.Tensor]
    images: list[int]

    def pictures(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each row's patches (n, features) and grids (pictures, 3); empty without pictures."""
        if self.inputs.get("pixel_values") is None:
            return []
        grids = self.inputs["image_grid_thw"].split(self.images)
        sizes = [sum(t * h * w for t, h, w in grid.tolist()) for grid in grids]
        return list(zip(self.inputs["pixel_values"].split(sizes), grids, strict=True))

    def rows(self, wanted: Sequence[int]) -> dict[str, torch.Tensor]:
        """The inputs of ``wanted`` rows alone."""
        of_row = ("input_ids", "attention_mask", "mm_token_type_ids")
        out = {k: v[list(wanted)] for k, v in self.inputs.items() if k in of_row}
        pictures = self.pictures()
        if not pictures:
            out.pop("mm_token_type_ids", None)
            return out
        out["pixel_values"] = torch.cat([pictures[i][0] for i in wanted])
        out["image_grid_thw"] = torch.cat([pictures[i][1] for i in wanted])
        return out

    def distinct(self) -> tuple[list[int], torch.Tensor]:
        """The first row of each different prompt, and for every row which of them it is."""
        known: dict[tuple[bytes, bytes], int] = {}
        words, pictures = self.inputs["input_ids"].numpy(), self.pictures()
        which = []
        for row in range(len(words)):
            shown = pictures[row][0].numpy().tobytes() if pictures else b""
            which.append(known.setdefault((words[row].tobytes(), shown), len(known)))
        return [which.index(i) for i in range(len(known))], torch.tensor(which)


def on_one_cpu(trainer: Any) -> bool:
    """Whether one process trains, on a CPU, a model that the quick CPU path can compute."""
    alone = processes() == 1 and not trainer.args.gradient_checkpointing
    return alone and fits(trainer.accelerator.unwrap_model(trainer.model))


class SharedPrompts:
    """Mixin for TRL's GRPOTrainer and RLOOTrainer; elsewhere than on one CPU process it is idle."""

    apart = False
    """Whether each rollout is to pass through the model whole: a part looks at what it computes."""

    without_gradient: torch.Tensor | None = None
    """Rows of the batch whose loss has no gradient, while a loss is computed."""

    def shares(self: Any) -> bool:
        return not self.use_vllm and on_one_cpu(self)

    def continued(self: Any, prompts: Prompts, pick: Any, watch: Any = None) -> torch.Tensor:
        """A reply to every row: token ids (rows, longest), padded behind their ends."""
        first, which = prompts.distinct()
        watching = {} if watch is None else {"watch": watch}
        with torch.no_grad():
            prefix = read(self.model, prompts.rows(first)).rows(which)
            return decode(
                self.model,
                prefix,
                self.max_completion_length,
                pick,
                self.eos_token_ids,
                self._tokenizer.pad_token_id,
                **watching,
            )

    def _generate_single_turn(
        self: Any, prompt_ids: Any, images: Any, fields: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not self.shares():
            return super()._generate_single_turn(prompt_ids, images, fields, *args, **kwargs)
        config = self.generation_config
        pick = sampler(config.temperature if config.do_sample else 0, config.top_p or 1.0)
        written = self.continued(self.prompts_of(prompt_ids, images, fields), pick)
        replies = [until(row, self.eos_token_ids) for row in written.tolist()]
        # GRPO's also tells the engine's log-probabilities, where there is an engine.
        return (replies, None) if hasattr(self, "loss_type") else replies

    def prompts_of(self: Any, prompt_ids: Any, images: Any, fields: dict[str, Any]) -> Prompts:
        """What TRL's tokenising gave, as tensors."""
        longest = max(map(len, prompt_ids))

        def padded(rows: Any, filler: int) -> torch.Tensor:
            return torch.tensor([[filler] * (longest - len(row)) + list(row) for row in rows])

        inputs = {
            "input_ids": padded(prompt_ids, self._tokenizer.pad_token_id),
            "attention_mask": padded([[1] * len(ids) for ids in prompt_ids], 0),
        }
        for name, value in fields.items():
            of_rows = name == "mm_token_type_ids"
            inputs[name] = padded(value, 0) if of_rows else torch.as_tensor(value)
        counts = [len(row or ()) for row in images] if images else [0] * len(prompt_ids)
        return Prompts(inputs, counts)

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        if self.shares() and not self.apart and self.beta == 0:
            self.without_gradient = inputs["advantages"] == 0
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.without_gradient = None

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if self.apart or not self.shares():
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        length = input_ids.shape[1] - logits_to_keep
        inputs = {"input_ids": input_ids[:, :length], "attention_mask": attention_mask[:, :length]}
        for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids"):
            if kwargs.get(name) is not None:
                value = kwargs[name]
                inputs[name] = value[:, :length] if name == "mm_token_type_ids" else value
        images = kwargs.get("num_images")
        prompts = Prompts(inputs, [int(n) for n in images] if images is not None else [])
        first, which = prompts.distinct()
        still = self.without_gradient
        if still is None or not torch.is_grad_enabled():
            still = torch.zeros(len(which), dtype=torch.bool)
        still = still.clone()
        still[0] &= not bool(still.all())  # a batch that teaches nothing still has a gradient, 0
        logps = torch.zeros(input_ids.shape[0], logits_to_keep)
        entropies = torch.zeros_like(logps)
        for part, graded in ((~still, torch.is_grad_enabled()), (still, False)):
            rows = part.nonzero()[:, 0]
            if not len(rows):
                continue
            asked = sorted(set(which[rows].tolist()))
            local = torch.tensor([asked.index(i) for i in which[rows].tolist()])
            with torch.set_grad_enabled(graded):
                prefix = read(model, prompts.rows([first[i] for i in asked])).rows(local)
                told = score(
                    model, prefix, input_ids[rows, length:], attention_mask[rows, length:],
                    self.temperature,
                )  # fmt: skip
            logps = logps.index_copy(0, rows, told.logps)
            entropies = entropies.index_copy(0, rows, told.entropies)
        return logps, entropies, None


def until(row: list[int], ends: Sequence[int]) -> list[int]:
    """A reply up to and with its end."""
    for i, token in enumerate(row):
        if token in ends:
            return row[: i + 1]
    return row
