"""The id lists that are known without the data, and their hashes for the cards.

If a table has no ids, a sample's id is its row number, so that the rows drawn by a seeded rule are
known without downloading anything. ``python -m cpt_bench.tasks.cpt7.publish`` prints
each list's hash; with a task and a split (``superclevr@mini test``) the list itself.
"""

from __future__ import annotations

import sys

from cpt_bench.sources.cache import ids_digest
from cpt_bench.sources.hub import drawn
from cpt_bench.suite import open_suite
from cpt_bench.suite.origins import Split

_NUMBERED = {
    ("scienceqa", "train"): ("train-{:05d}", 6218),
    ("scienceqa", "test"): ("test-{:05d}", 2017),
    ("geometry3k", "train"): ("train-{:05d}", 2101),
    ("geometry3k", "test"): ("test-{:05d}", 601),
    ("pathvqa", "train"): ("train-{:05d}", 19654),
    ("pathvqa", "test"): ("test-{:05d}", 6719),
    ("superclevr", "train"): ("row-{:05d}", 8642),
    ("superclevr", "test"): ("row-{:05d}", 8642),
}


def known_ids(task: str, split: str) -> list[str] | None:
    """All ids that a split is drawn from, in table order; None if they need the data."""
    if (task, split) in _NUMBERED:
        form, n = _NUMBERED[task, split]
        return [form.format(i) for i in range(n)]
    return None


def listed(ids: list[str], split: Split) -> list[str]:
    """The ids of a split: all, or those that its rule draws, in its order."""
    if split.draw is None:
        return ids
    return [entry[0] for entry in drawn([(i, 0, 0) for i in ids], split.draw, split.n)]


def main() -> None:
    """Print hashes, or one list."""
    wanted = sys.argv[1:]
    for tier in ("full", "mini"):
        for name, card in open_suite(f"cpt7@{tier}").cards.items():
            for split, published in card.splits.items():
                ids = known_ids(name, split)
                if ids is None:
                    continue
                if wanted == [f"{name}@{tier}", split]:
                    print("\n".join(listed(ids, published)))
                elif not wanted:
                    print(f"{name}@{tier}/{split} {ids_digest(listed(ids, published))}")


if __name__ == "__main__":
    main()
