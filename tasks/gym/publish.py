"""Write the hash of every split into its card (after a deliberate change of the data).

python -m cpt_bench.tasks.gym.publish [CARD ...] [--tier full|mini] [--split test]

Without names all cards are written; some of the published sequences take minutes to make.
"""

from __future__ import annotations

import argparse
import re

from cpt_bench.sources import split_digest
from cpt_bench.sources.loading import made_split
from cpt_bench.suite import load_suite
from cpt_bench.tasks.gym import FOLDER

VARIANTS = ("", "crg-algorithmic", "crg-algebra")


def publish(names: list[str], tiers: list[str], splits: list[str]) -> None:
    """Make the splits and write their hashes."""
    for variant in VARIANTS:
        for tier in tiers:
            tag = "+".join(filter(None, (variant, tier)))
            for name, card in load_suite(FOLDER.with_name(f"gym@{tag}")).cards.items():
                for split in card.splits:
                    if (not names or name in names) and split in splits:
                        found = split_digest(made_split(card, split, check=False))
                        write(name, tier, split, card.splits[split].n, found)


def write(name: str, tier: str, split: str, n: int, found: str) -> None:
    """Write one hash into its card."""
    file = FOLDER / f"{name}.yaml"
    text = file.read_text()
    pattern = rf"(\n +{split}: \{{n: {n}, sha256: )(?:null|'?[0-9a-f]{{64}}'?)"
    text, changed = re.subn(pattern, rf"\g<1>{found}", text)
    assert changed == 1, (name, tier, split)
    file.write_text(text)
    print(f"{name} {tier} {split} {found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--tier", action="append")
    parser.add_argument("--split", action="append")
    asked = parser.parse_args()
    publish(asked.names, asked.tier or ["full", "mini"], asked.split or ["train", "test"])


if __name__ == "__main__":
    main()
