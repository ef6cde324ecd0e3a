"""Where samples come from: a card's source and split become canonical samples, hash-checked."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable

from cpt_bench.errors import CptBenchError
from cpt_bench.suite import Sample, TaskCard


def load_split(card: TaskCard, split: str, *, check: bool = True) -> list[Sample]:
    """The samples of one split, in their published order.

    Args:
        card: The task.
        split: ``train`` or ``test``.
        check: Compare the hash with the card's; only the tool that writes cards does not.

    Raises:
        CptBenchError: The samples made here are not those the card publishes.
    """
    published = card.splits.get(split)
    if published is None:
        raise CptBenchError(f"task {card.name} has no {split} split")
    module, _, function = card.source.target.partition(":")
    make = getattr(importlib.import_module(module), function)
    samples: list[Sample] = list(make(split, published.n, **card.source.options))
    if check and (found := split_digest(samples)) != published.sha256:
        raise CptBenchError(
            f"the {split} split differs from the published one (sha256 {found[:12]}…, "
            f"not {published.sha256[:12]}…)",
            where=f"task {card.name}",
            todo="Reinstall cptbench, or check what changed in its data files",
        )
    return samples


def split_digest(samples: Iterable[Sample]) -> str:
    """SHA-256 over ids, questions, images, gold answers and kinds, in order."""
    total = hashlib.sha256()
    for sample in samples:
        images = [hashlib.sha256(image).hexdigest() for image in sample.images]
        fields = (sample.id, sample.question, *images, *sample.answers, sample.kind)
        total.update(("\0".join(fields) + "\n").encode())
    return total.hexdigest()
