"""Where samples come from: a card's source and split become canonical samples, hash-checked."""

from cpt_bench.sources.digests import split_digest
from cpt_bench.sources.loading import load_split, require_prepared

__all__ = ["load_split", "require_prepared", "split_digest"]
