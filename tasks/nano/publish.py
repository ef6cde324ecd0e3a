"""Write the hash of every split into its card (after a deliberate change of the data).

python -m cpt_bench.tasks.nano.publish [FOLDER]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cpt_bench.sources import load_split, split_digest
from cpt_bench.suite import load_suite
from cpt_bench.tasks.nano import FOLDER


def publish(folder: Path) -> None:
    for name, card in load_suite(folder).cards.items():
        file = folder / f"{name}.yaml"
        text = file.read_text()
        for split in card.splits:
            found = split_digest(load_split(card, split, check=False))
            pattern = rf"({split}: \{{n: \d+, sha256: )'?[0-9a-f]{{64}}'?"
            text, changed = re.subn(pattern, rf"\g<1>{found}", text)
            assert changed == 1, (name, split)
        file.write_text(text)


if __name__ == "__main__":
    publish(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
