"""On the quick path, the rollouts of a prompt share it: it is read once to write and to score them.

With eight rollouts, TRL computes a prompt's picture and words eight times. Here each prompt is read
once for a batch, and every reply continues from its keys and values, with gradients through them.
Rollouts whose advantage is 0 have no gradient; they are read without what a backward pass needs.
Losses and gradients are the same, summed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from cpt_bench.models import quick


class Prompts(NamedTuple):
    """The prompts of a batch as the model takes them, padded on the left.

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
        """The inputs of the rows ``wanted``, in that order."""
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
        """The first row of each different prompt, and for every row the number of its prompt."""
        known: dict[tuple[bytes, bytes], int] = {}
        words, pictures = self.inputs["input_ids"].numpy(), self.pictures()
        which = []
        for row in range(len(words)):
            shown = pictures[row][0].numpy().tobytes() if pictures else b""
            which.append(known.setdefault((words[row].tobytes(), shown), len(known)))
        return [which.index(i) for i in range(len(known))], torch.tensor(which)


class Sharing(NamedTuple):
    """How rollouts share their prompts.

    Attributes:
        model: The quick path of the model that is trained.
        losses: Whether losses are computed on it too, or only rollouts are written on it.
        longest: The most tokens of a reply.
        ends: Tokens that end a reply.
        padding: The token that fills rows.
        never: Tokens that no reply has.
    """

    model: quick.QuickModel
    losses: bool
    longest: int
    ends: Sequence[int]
    padding: int
    never: Sequence[int]

    def prompts(self, prompt_ids: Any, images: Any, fields: dict[str, Any]) -> Prompts:
        """The prompts that TRL tokenized, as tensors."""
        longest = max(map(len, prompt_ids))

        def padded(rows: Any, filler: int) -> torch.Tensor:
            return torch.tensor([[filler] * (longest - len(row)) + list(row) for row in rows])

        inputs = {
            "input_ids": padded(prompt_ids, self.padding),
            "attention_mask": padded([[1] * len(ids) for ids in prompt_ids], 0),
        }
        for name, value in fields.items():
            of_rows = name == "mm_token_type_ids"
            inputs[name] = padded(value, 0) if of_rows else torch.as_tensor(value)
        counts = [len(row or ()) for row in images] if images else [0] * len(prompt_ids)
        return Prompts(inputs, counts)

    def write(
        self,
        prompts: Prompts,
        temperature: float,
        top_p: float = 1.0,
        watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """A reply to each row; see :meth:`cpt_bench.models.quick.Reading.write`."""
        first, which = prompts.distinct()
        with torch.no_grad():
            return (
                self.model.read(prompts.rows(first))
                .rows(which)
                .write(
                    self.longest,
                    temperature=temperature,
                    top_p=top_p,
                    ends=self.ends,
                    padding=self.padding,
                    never=self.never,
                    watch=watch,
                )
            )


def share(trainer: Any, model: quick.QuickModel | None, losses: bool) -> None:
    """Give a quick path to ``trainer``, after which its rollouts share their prompts.

    Args:
        trainer: TRL's trainer with :class:`SharedPrompts`.
        model: The quick path of its model; None changes nothing.
        losses: Whether losses are computed on it too.
    """
    if model is None or trainer.use_vllm:
        return
    trainer.sharing = Sharing(
        model,
        losses,
        trainer.max_completion_length,
        trainer.eos_token_ids,
        trainer._tokenizer.pad_token_id,
        trainer.generation_config.suppress_tokens or (),
    )


class SharedPrompts:
    """Mixin for TRL's GRPOTrainer and RLOOTrainer, whose own code runs until :func:`share`."""

    sharing: Sharing | None = None

    without_gradient: torch.Tensor | None = None
    """While a loss is computed: the rows of its batch that have no gradient."""

    def _generate_single_turn(
        self: Any, prompt_ids: Any, images: Any, fields: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if self.sharing is None:
            return super()._generate_single_turn(  # type: ignore[misc]
                prompt_ids, images, fields, *args, **kwargs
            )
        config = self.generation_config
        written = self.sharing.write(
            self.sharing.prompts(prompt_ids, images, fields),
            config.temperature if config.do_sample else 0,
            config.top_p or 1.0,
        )
        replies = [until(row, self.eos_token_ids) for row in written.tolist()]
        # GRPOTrainer expects the log-probabilities of a rollout engine too; there is none here.
        return (replies, None) if hasattr(self, "loss_type") else replies

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        if self.sharing is not None and self.beta == 0:
            self.without_gradient = inputs["advantages"] == 0
        try:
            return super()._compute_loss(model, inputs)  # type: ignore[misc]
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
        # The model may be another than the one that is trained: a reference or an anchor.
        scorer = quick.of(model) if self.sharing is not None and self.sharing.losses else None
        if scorer is None:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
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
        replies, mask = input_ids[:, length:], attention_mask[:, length:]
        scored = scores(scorer, prompts, replies, mask, self.temperature, self.without_gradient)
        return *scored, None


def scores(
    model: quick.QuickModel,
    prompts: Prompts,
    replies: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    without_gradient: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """How likely each token of ``replies`` is, and the entropy at each, both (rows, length).

    Args:
        model: Reads the prompts and scores the replies.
        prompts: A prompt for each reply; those that are the same are read once.
        replies: Token ids (rows, length), padded on the right.
        mask: 1 for a token of the reply (rows, length).
        temperature: Divides the logits.
        without_gradient: The rows that need no gradient (rows,); None: all need it.
    """
    first, which = prompts.distinct()
    wanted = torch.is_grad_enabled()
    still = torch.zeros(len(which), dtype=torch.bool)
    if wanted and without_gradient is not None:
        still = without_gradient.clone()
    still[0] &= not bool(still.all())  # a batch without any gradient still has one, which is 0
    logps = torch.zeros(len(replies), replies.shape[1])
    entropies = torch.zeros_like(logps)
    for part, graded in ((~still, wanted), (still, False)):
        rows = part.nonzero()[:, 0]
        if not len(rows):
            continue
        asked = sorted(set(which[rows].tolist()))
        local = torch.tensor([asked.index(i) for i in which[rows].tolist()])
        with torch.set_grad_enabled(graded):
            reading = model.read(prompts.rows([first[i] for i in asked])).rows(local)
            found = reading.score(replies[rows], mask[rows], temperature)
        logps = logps.index_copy(0, rows, found.logps)
        entropies = entropies.index_copy(0, rows, found.entropies)
    return logps, entropies


def until(row: list[int], ends: Sequence[int]) -> list[int]:
    """A reply up to and including its end."""
    for i, token in enumerate(row):
        if token in ends:
            return row[: i + 1]
    return row
