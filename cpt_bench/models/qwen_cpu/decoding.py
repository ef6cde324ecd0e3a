"""Reads prompts, writes and scores replies, without what ``generate`` does around each step.

The arithmetic is that of transformers' Qwen2.5-VL, whose modules are called; only results that
nobody uses are left out. A prompt that several replies share is read once. Of its tokens the last
layer computes keys and values, and the rest for the last token alone. A reply that has ended leaves
the batch. Keys and values are written into tables of their final length instead of being copied at
every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as stock

from cpt_bench.models.qwen_cpu.kernels import rotated_heads
from cpt_bench.models.qwen_cpu.layers import arrange, attend

Pick = Callable[[torch.Tensor], torch.Tensor]
"""Next tokens (rows,) from logits (rows, words)."""

ENDED = 0.25
"""Ended rows are taken out of a batch from this share on: taking them out copies the others."""


class Prefix(NamedTuple):
    """Prompts that the model has read.

    Attributes:
        hidden: Last hidden state of each prompt's last token (prompts, width).
        keys: The keys of each layer (prompts, heads, length, width).
        values: The values of each layer, in the same shape.
        mask: 1 for a token, 0 for padding, which is on the left (prompts, length).
        next: The position of the token that comes next (prompts,).
    """

    hidden: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    mask: torch.Tensor
    next: torch.Tensor

    def rows(self, which: torch.Tensor) -> Prefix:
        """The prompts with the numbers ``which``; a number may be repeated or left out."""
        keys, values = [t[which] for t in self.keys], [t[which] for t in self.values]
        return Prefix(self.hidden[which], keys, values, self.mask[which], self.next[which])


def fits(model: Any) -> bool:
    """Whether ``model`` is a Qwen2.5-VL in float32 on a CPU, without adapters around it."""
    return (
        type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
        and model.device.type == "cpu"
        and model.dtype == torch.float32
        and model.model.language_model.config._attn_implementation == "eager"
    )


class _Reading(DynamicCache):  # type: ignore[misc]
    """Keys and values of texts of which only the last ``wanted`` hidden states are used."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted


class LastLayer(stock.Qwen2_5_VLDecoderLayer):  # type: ignore[misc]
    """The last layer: keys and values of all tokens, hidden states of the wanted ones alone."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        cache = kwargs.get("past_key_values")
        if not isinstance(cache, _Reading):
            return super().forward(hidden_states, *args, **kwargs)
        attention, end = self.self_attn, slice(-cache.wanted, None)
        cos, sin = (table[:, None] for table in kwargs["position_embeddings"])
        normed = self.input_layernorm(hidden_states)
        keys, values = attention.remembered(normed, cos, sin, cache)
        asked = attention.heads(attention.q_proj(normed[:, end]))
        query = rotated_heads(asked, cos[:, :, end], sin[:, :, end], attention.scaling)
        mask = kwargs["attention_mask"]
        seen = attend(query, keys, values, None if mask is None else mask[:, :, end])
        states = hidden_states[:, end] + attention.o_proj(seen)
        return states + self.mlp(self.post_attention_layernorm(states))


def _follow(
    model: Any, inputs: dict[str, Any], wanted: int
) -> tuple[torch.Tensor, _Reading, torch.Tensor]:
    """Run the model over ``inputs``.

    Returns:
        Last hidden states of the last ``wanted`` tokens (rows, wanted, width); the keys and values
        of all; the position after the last token of each row (rows,).
    """
    last = model.model.language_model.layers[-1]
    if type(last) is not LastLayer:
        arrange(model)  # a model that TRL loaded has transformers' layers
        # The class alone changes, and it acts only on a cache of the class above.
        last.__class__ = LastLayer
    mask, cache = inputs["attention_mask"], _Reading(wanted)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    following = positions[:, -1] + 1
    if inputs.get("pixel_values") is None:
        places = positions.expand(3, -1, -1)
    else:
        places, shift = _places(model, inputs)
        following = following + shift
    out = model.model(**inputs, position_ids=places, past_key_values=cache, use_cache=True)
    return out.last_hidden_state, cache, following


def _places(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (3, rows, length), and for each row the next position minus its length (rows,).

    They are computed once for rows with the same padding, the same pictures and as many words
    between them.
    """
    mask, kinds = inputs["attention_mask"], inputs["mm_token_type_ids"]
    grids, rows = inputs["image_grid_thw"], len(mask)
    first, which = list(range(rows)), torch.arange(rows)
    if len(grids) % rows == 0:
        of_row = grids.view(rows, -1, 3)
        merged = model.config.vision_config.spatial_merge_size**2
        if torch.equal(of_row.prod(-1).sum(1) // merged, (kinds == 1).sum(1)):
            looks = torch.cat([mask, kinds, of_row.flatten(1)], dim=1)
            kinds_of_row, which = torch.unique(looks, dim=0, return_inverse=True)
            first = [which.tolist().index(i) for i in range(len(kinds_of_row))]
            grids = of_row[first].flatten(0, 1)
    places, shift = model.model.get_rope_index(
        inputs["input_ids"][first],
        mm_token_type_ids=kinds[first],
        image_grid_thw=grids,
        attention_mask=mask[first],
    )
    return places[:, which], shift[which, 0]


def read(model: Any, inputs: dict[str, Any]) -> Prefix:
    """Read the prompts of ``inputs``, which the processor encoded and padded on the left."""
    hidden, cache, following = _follow(model, inputs, wanted=1)
    keys, values = [x.keys for x in cache.layers], [x.values for x in cache.layers]
    return Prefix(hidden[:, -1], keys, values, inputs["attention_mask"], following)


class Scores(NamedTuple):
    """How likely a model finds replies, token by token (rows, length); 0 after their ends.

    Attributes:
        logps: Log-probability of each token, in nats.
        entropies: Entropy of the distribution at each token, in nats.
        likeliest: Whether each token was the most likely one.
    """

    logps: torch.Tensor
    entropies: torch.Tensor
    likeliest: torch.Tensor


def score(
    model: Any, prefix: Prefix, replies: torch.Tensor, mask: torch.Tensor, temperature: float
) -> Scores:
    """How likely each token of ``replies`` is, with gradients to the model and to ``prefix``.

    Args:
        model: The model that read ``prefix``.
        prefix: The prompts; one row for each reply.
        replies: Token ids (rows, length), padded on the right.
        mask: 1 for a token of the reply (rows, length).
        temperature: Divides the logits.
    """
    text, cache = model.model.language_model, DynamicCache()
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        cache.update(keys, values, layer)
    steps = torch.arange(replies.shape[1] - 1)
    hidden = prefix.hidden[:, None]
    if len(steps):
        out = text(
            inputs_embeds=text.embed_tokens(replies[:, :-1]),
            position_ids=(prefix.next[:, None] + steps).expand(3, -1, -1),
            attention_mask=torch.cat([prefix.mask, mask[:, :-1]], dim=1),
            past_key_values=cache,
            use_cache=True,
        )
        hidden = torch.cat([hidden, out.last_hidden_state], dim=1)
    return _scores(model, hidden, replies, mask, temperature)


def score_answers(model: Any, inputs: dict[str, Any], length: int) -> Scores:
    """How likely the answers are that follow their prompts in ``inputs``, at temperature 1.

    Args:
        model: The model.
        inputs: Prompts padded on the left, then answers padded on the right.
        length: How many columns the answers take.
    """
    hidden, _, _ = _follow(model, inputs, wanted=length + 1)
    replies, mask = (inputs[name][:, -length:] for name in ("input_ids", "attention_mask"))
    return _scores(model, hidden[:, :-1], replies, mask, 1.0)


def _scores(
    model: Any, hidden: torch.Tensor, replies: torch.Tensor, mask: torch.Tensor, temperature: float
) -> Scores:
    logps = torch.log_softmax(model.lm_head(hidden) / temperature, dim=-1)
    off = mask == 0
    with torch.no_grad():
        entropies = -(logps.exp() * logps).sum(-1).masked_fill(off, 0)
        likeliest = (logps.argmax(-1) == replies).masked_fill(off, False)
    chosen = logps.gather(-1, replies[..., None])[..., 0].masked_fill(off, 0)
    return Scores(chosen, entropies, likeliest)


class _Room:
    """Keys and values in tables that are long enough for the replies; acts as the model's cache."""

    def __init__(self, prefix: Prefix, more: int) -> None:
        self.length = prefix.mask.shape[1]
        self.tables = [
            [self._widen(table, more) for table in pair]
            for pair in zip(prefix.keys, prefix.values, strict=True)
        ]

    def _widen(self, table: torch.Tensor, more: int) -> torch.Tensor:
        rows, heads, length, width = table.shape
        wide = table.new_empty(rows, heads, length + more, width)
        wide[:, :, :length] = table
        return wide

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> Any:
        end = self.length + 1
        for table, new in zip(self.tables[layer], (keys, values), strict=True):
            table[:, :, self.length : end] = new
        return [table[:, :, :end] for table in self.tables[layer]]

    def select(self, rows: torch.Tensor) -> None:
        self.tables = [[table[rows] for table in pair] for pair in self.tables]


@torch.no_grad()  # type: ignore[untyped-decorator]
def decode(
    model: Any,
    prefix: Prefix,
    most: int,
    pick: Pick,
    ends: Sequence[int],
    padding: int,
    watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Write a reply to each row of ``prefix``.

    Args:
        model: The model that read the prefix.
        prefix: The prompts; one row for each reply.
        most: The most tokens of a reply.
        pick: Chooses each next token.
        ends: Tokens that end a reply.
        padding: Fills the rows after their ends.
        watch: Called before each token with the rows that go on (rows,) and their logits
            (rows, words).

    Returns:
        Token ids (rows, ``most``), ends included.
    """
    text, head = model.model.language_model, model.lm_head
    replies = torch.full((len(prefix.hidden), most), padding)
    ending = torch.tensor(list(ends))
    room, going, place = _Room(prefix, most), torch.arange(len(replies)), prefix.next
    ended = torch.zeros(len(replies), dtype=torch.bool)
    bias = None
    if not bool(prefix.mask.all()):
        shut = torch.nn.functional.pad(prefix.mask == 0, (0, most))[:, None, None]
        bias = torch.zeros(shut.shape, dtype=prefix.hidden.dtype)
        bias = bias.masked_fill_(shut, torch.finfo(bias.dtype).min)
    hidden = prefix.hidden
    for step in range(most):
        logits = head(hidden)
        if watch is not None:
            watch(going, logits)
        new = pick(logits).masked_fill_(ended, padding)
        replies[going, step] = new
        ended = ended | torch.isin(new, ending)
        if bool(ended.all()):
            break
        if float(ended.float().mean()) >= ENDED:
            left = (~ended).nonzero()[:, 0]
            going, new, place, ended = going[left], new[left], place[left], ended[left]
            bias = bias[left] if bias is not None else None
            room.select(left)
        seen = None if bias is None else bias[..., : room.length + 1]
        out = text(
            inputs_embeds=text.embed_tokens(new)[:, None],
            position_ids=(place + step)[None, :, None].expand(3, -1, 1),
            attention_mask={"full_attention": seen},
            past_key_values=room,
            use_cache=True,
        )
        room.length += 1
        hidden = out.last_hidden_state[:, -1]
    return replies


def sampler(temperature: float, top_p: float = 1.0, never: Sequence[int] = ()) -> Pick:
    """Draws from softmax(logits / temperature) within the nucleus ``top_p``; at 0, the largest.

    Where a token of ``never`` is drawn, another is drawn among the others, so that a policy that
    never chooses such a token writes what it would write without this rule.
    """
    pick = _sampler(temperature, top_p)
    if not never:
        return pick
    barred = torch.tensor(list(never))

    def pick_another(logits: torch.Tensor) -> torch.Tensor:
        new = pick(logits)
        wrong = torch.isin(new, barred)
        if bool(wrong.any()):
            new[wrong] = pick(logits[wrong].index_fill(-1, barred, -torch.inf))
        return new

    return pick_another


def _sampler(temperature: float, top_p: float) -> Pick:
    if temperature == 0:
        return lambda logits: logits.argmax(-1)
    from transformers import TopPLogitsWarper

    nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None

    def pick(logits: torch.Tensor) -> torch.Tensor:
        scores = logits / temperature
        if nucleus is not None:
            scores = nucleus(None, scores)
        return torch.multinomial(scores.softmax(-1), 1)[:, 0]

    return pick
