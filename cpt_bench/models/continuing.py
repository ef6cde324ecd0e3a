"""Continues prompts that a model has read: writes replies to them, and scores given ones.

This is what ``generate`` and a pass over whole rows compute, without what nobody uses. A prompt
that several replies share is read once. A reply that has ended leaves the batch. Keys and values
are written into tables of their final length instead of being copied at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

Pick = Callable[[torch.Tensor], torch.Tensor]
"""Next tokens (rows,) from logits (rows, words)."""

ENDED = 0.25
"""Ended rows are taken out of a batch from this share on: taking them out copies the others."""


class Decoder:
    """The part of a model that continues a text: transformers' language model and its head.

    Args:
        text: The language model, from tokens to last hidden states.
        head: From last hidden states to logits.
    """

    def __init__(self, text: Any, head: Any) -> None:
        self.text, self.head = text, head

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The first hidden states of tokens (rows, length), as (rows, length, width)."""
        states: torch.Tensor = self.text.embed_tokens(tokens)
        return states

    def follow(
        self, states: torch.Tensor, places: torch.Tensor, mask: Any, cache: Any
    ) -> torch.Tensor:
        """The last hidden states of tokens that follow those in ``cache``.

        Args:
            states: The tokens' first hidden states (rows, length, width).
            places: Their positions (rows, length).
            mask: 1 for a token, 0 for padding, of the cache's columns and the new ones; or what
                transformers makes of that.
            cache: Keys and values of what came before; the new ones are added.
        """
        out = self.text(
            inputs_embeds=states,
            position_ids=places,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def step(
        self, states: torch.Tensor, places: torch.Tensor, bias: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """The last hidden states (rows, 1, width) of one more token in each row.

        Args:
            states: The tokens' first hidden states (rows, 1, width).
            places: Their positions (rows, 1).
            bias: Added to attention's scores (rows, 1, 1, columns); None where nothing is padding.
            cache: Keys and values of what came before; the new ones are added.
        """
        if bias is None:  # transformers would ask the cache what to make of no mask
            bias = states.new_zeros(len(states), 1, 1, cache.length + 1)
        return self.follow(states, places, bias, cache)


class Prefix(NamedTuple):
    """Prompts that a model has read.

    Attributes:
        hidden: Last hidden state of each prompt's last token (prompts, width).
        keys: The keys of each layer (prompts, heads, length, width).
        values: The values of each layer, in the same shape.
        mask: 1 for a token, 0 for padding, which is not at the end (prompts, length).
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
    decoder: Decoder, prefix: Prefix, replies: torch.Tensor, mask: torch.Tensor, temperature: float
) -> Scores:
    """How likely each token of ``replies`` is, with gradients to the model and to ``prefix``.

    Args:
        decoder: Of the model that read ``prefix``.
        prefix: The prompts; one row for each reply.
        replies: Token ids (rows, length), padded on the right.
        mask: 1 for a token of the reply (rows, length).
        temperature: Divides the logits.
    """
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        cache.update(keys, values, layer)
    steps = torch.arange(replies.shape[1] - 1)
    hidden = prefix.hidden[:, None]
    if len(steps):
        more = decoder.follow(
            decoder.embed(replies[:, :-1]),
            prefix.next[:, None] + steps,
            torch.cat([prefix.mask, mask[:, :-1]], dim=1),
            cache,
        )
        hidden = torch.cat([hidden, more], dim=1)
    return scores(decoder, hidden, replies, mask, temperature)


def scores(
    decoder: Decoder,
    hidden: torch.Tensor,
    replies: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
) -> Scores:
    """How likely each token of ``replies`` is.

    Args:
        decoder: Computes the logits.
        hidden: The last hidden states from which each token is predicted (rows, length, width).
        replies: Token ids (rows, length).
        mask: 1 for a token of the reply (rows, length).
        temperature: Divides the logits.
    """
    logps = torch.log_softmax(decoder.head(hidden) / temperature, dim=-1)
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
def write(
    decoder: Decoder,
    prefix: Prefix,
    most: int,
    pick: Pick,
    ends: Sequence[int],
    padding: int,
    watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Write a reply to each row of ``prefix``.

    Args:
        decoder: Of the model that read the prefix.
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
        logits = decoder.head(hidden)
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
        states = decoder.embed(new)[:, None]
        hidden = decoder.step(states, (place + step)[:, None], seen, room)[:, -1]
        room.length += 1
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


class Reading(NamedTuple):
    """Prompts that a model has read; see :class:`cpt_bench.models.quick.Reading`."""

    decoder: Decoder
    prefix: Prefix

    def rows(self, which: torch.Tensor) -> Reading:
        return Reading(self.decoder, self.prefix.rows(which))

    def write(
        self,
        most: int,
        *,
        temperature: float,
        top_p: float = 1.0,
        ends: Sequence[int],
        padding: int,
        never: Sequence[int] = (),
        watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        pick = sampler(temperature, top_p, never)
        return write(self.decoder, self.prefix, most, pick, ends, padding, watch)

    def score(self, replies: torch.Tensor, mask: torch.Tensor, temperature: float) -> Scores:
        return score(self.decoder, self.prefix, replies, mask, temperature)
