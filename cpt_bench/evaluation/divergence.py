"""How far training moved the policy: KL(base || policy), and the policy's entropy.

"RL's Razor" (arXiv 2509.04259) claims that forgetting is predicted by the divergence from the base
model on prompts of the *new* task. Here, for a prompt x and the base model's own greedy reply
y of n tokens (as recorded when the base was evaluated),

    KL(x) = 1/(n+1) sum_{i=0..n} sum_v p(v | x, y[:i]) ln (p(v | x, y[:i]) / q(v | x, y[:i])),

with p the base's and q the policy's distribution, in nats per token. It is exact over the whole
vocabulary, at each position of the reply and at the one after it, teacher-forced; then averaged
over prompts. It stands in for the expectation over the base's own samples, without their noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpt_bench.engines import Request
from cpt_bench.engines.hf import system_turn
from cpt_bench.models import batches

NEW, GENERAL = 64, 32
"""How many test prompts to use, from the start: of the stage's task, of each general benchmark."""

CELLS = 1 << 26
"""Maximal number of logits (prompts x positions x vocabulary) in one batch and model."""


def divergence(base: Any, policy: Any, requests: Sequence[Request]) -> list[dict[str, Any]]:
    """KL(base || policy) along given replies.

    Args:
        base: The base model's :class:`~cpt_bench.engines.hf.TransformersEngine`.
        policy: The trained model's; both have the same tokenizer.
        requests: Prompts, each with the base's reply as its ``prefix``.

    Returns:
        One row per request, in order: ``id``, ``tokens`` (positions), ``kl``, ``entropy`` of the
        policy and ``base_entropy``, each in nats per token.
    """
    rows: dict[int, dict[str, Any]] = {}
    lengths = _positions(policy, requests)
    vocabulary = policy.model.get_output_embeddings().weight.shape[0]

    def fitting(ahead: Sequence[int]) -> int:
        return int(max(1, CELLS // (lengths[ahead[-1]] * vocabulary)))

    pictures = [len(r.images) for r in requests]
    for batch in batches.of_equal_pictures(pictures, lengths, policy.batch_size, fitting):
        found = _batch(base, policy, [requests[i] for i in batch], [lengths[i] for i in batch])
        rows.update(zip(batch, found, strict=True))
    return [rows[i] for i in range(len(requests))]


def _positions(engine: Any, requests: Sequence[Request]) -> list[int]:
    """The number of tokens of each reply, tokenized after its prompt, plus one."""
    turns = [
        [*system_turn(r), {"role": "user", "content": [{"type": "text", "text": r.prompt}]}]
        for r in requests
    ]
    whole = engine.texts(turns, [r.prefix for r in requests])
    asked = engine.texts(turns, [""] * len(requests))
    ids = engine.processor.tokenizer(whole + asked)["input_ids"]
    ends, starts = ids[: len(requests)], ids[len(requests) :]
    return [len(end) - len(start) + 1 for end, start in zip(ends, starts, strict=True)]


def _batch(
    base: Any, policy: Any, requests: list[Request], lengths: list[int]
) -> list[dict[str, Any]]:
    import torch

    inputs = policy.encode(requests)
    logits = []
    with torch.inference_mode():
        for engine in (base, policy):
            # Padded on the left: the last positions are those of the reply.
            out = engine.model(**inputs, logits_to_keep=max(lengths), use_cache=False).logits
            logits.append(torch.log_softmax(out.float(), dim=-1))
        reference, ours = logits
        kl = (reference.exp() * (reference - ours)).sum(dim=-1)
        entropies = [-(p.exp() * p).sum(dim=-1) for p in (ours, reference)]
    rows = []
    for i, (request, n) in enumerate(zip(requests, lengths, strict=True)):
        figures = [float(table[i, -n:].mean()) for table in (kl, *entropies)]
        # KL is not negative, but rounding errors give about -1e-8 if the models are the same.
        values = dict(zip(("kl", "entropy", "base_entropy"), figures, strict=True))
        rounded = {key: round(max(0.0, value), 7) for key, value in values.items()}
        rows.append({"id": request.id, "tokens": n, **rounded})
    return rows
