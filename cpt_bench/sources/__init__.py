"""Loads samples: turns a card's source and split into canonical samples and checks their hash."""

from cpt_bench.sources.digests import split_digest
from cpt_bench.sources.loading import (
    load_split,
    questions_of,
    require_packages,
    require_prepared,
)

__all__ = ["load_split", "questions_of", "require_packages", "require_prepared", "split_digest"]
