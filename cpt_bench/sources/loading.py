"""Loads a split from any kind of source and checks it against the published hash."""

from __future__ import annotations

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import load
from cpt_bench.sources.cache import read
from cpt_bench.sources.digests import split_digest
from cpt_bench.suite import Sample, Suite, TaskCard
from cpt_bench.suite.origins import Generator
from cpt_bench.suite.prepared import is_prepared, root


def load_split(card: TaskCard, split: str, *, check: bool = True) -> list[Sample]:
    """The samples of one split, in their published order.

    Args:
        card: The task.
        split: ``train`` or ``test``.
        check: Compare the hash with the card's; off only in the tool that writes cards.

    Raises:
        CptBenchError: The samples are not those that the card publishes, or the data has not been
            prepared.
    """
    published = card.splits.get(split)
    if published is None:
        raise CptBenchError(f"task {card.name} has no {split} split")
    if not isinstance(card.source, Generator):
        return read(card, split, check=check)
    make = load(card.source.target, card.folder)
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
    """Raise an error that lists the data to prepare before ``suite`` can be run."""
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
