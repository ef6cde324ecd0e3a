"""Where samples come from: a card's source and split become canonical samples, hash-checked."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Sequence

from cpt_bench.errors import CptBenchError
from cpt_bench.origins import Generator
from cpt_bench.suite import Sample, Suite, TaskCard


def load_split(card: TaskCard, split: str, *, check: bool = True) -> list[Sample]:
    """The samples of one split, in their published order.

    Args:
        card: The task.
        split: ``train`` or ``test``.
        check: Compare the hash with the card's; only the tool that writes cards does not.

    Raises:
        CptBenchError: The samples made here are not those the card publishes, or data that must
            be fetched first are not there.
    """
    published = card.splits.get(split)
    if published is None:
        raise CptBenchError(f"task {card.name} has no {split} split")
    if not isinstance(card.source, Generator):
        from cpt_bench.sources.cache import read

        return read(card, split, check=check)
    module, _, function = card.source.target.partition(":")
    make = getattr(importlib.import_module(module), function)
    samples: list[Sample] = list(make(split, published.n, **card.source.options))
    if check and (found := split_digest(samples)) != published.sha256:
        raise CptBenchError(
            f"the {split} split differs from the published one (sha256 {found[:12]}…, "
            f"not {str(published.sha256)[:12]}…)",
            where=f"task {card.name}",
            todo="Reinstall cptbench, or check what changed in its data files",
        )
    return samples


def require_prepared(suite: Suite, spec: str) -> None:
    """Say in one line which data must be fetched before a run of ``suite`` can start."""
    from cpt_bench.sources.cache import is_prepared, root

    missing = [
        f"{card.name}/{split}"
        for card in suite.cards.values()
        if not isinstance(card.source, Generator)
        for split in card.splits
        if not is_prepared(card, split)
    ]
    if missing:
        raise CptBenchError(
            f"not prepared: {', '.join(missing)}",
            where=root(),
            todo=f"Run: cptbench data prepare --suite {spec}",
        )


def split_digest(samples: Iterable[Sample]) -> str:
    """SHA-256 over ids, questions, images, gold answers and kinds, in order."""
    total = hashlib.sha256()
    for s in samples:
        images = [hashlib.sha256(image).hexdigest() for image in s.images]
        total.update(
            digest_fields(
                s.id, s.question, images, s.answers, s.kind, s.choices, s.annotators, s.category
            )
        )
    return total.hexdigest()


def digest_fields(
    id: str,
    question: str,
    images: Sequence[str],
    answers: Sequence[str],
    kind: str,
    choices: Sequence[str],
    annotators: Sequence[str],
    category: str,
) -> bytes:
    """The bytes one sample adds to its split's hash; what a sample has not adds nothing."""
    fields = [id, question, *images, *answers, kind]
    for name, values in (("choices", choices), ("annotators", annotators)):
        fields += ["", name, *values] if values else []
    fields += ["", "category", category] if category else []
    return ("\0".join(fields) + "\n").encode()
