"""Publish the base model's row of a suite, with which every entry's row 0 is compared.

python -m cpt_bench.leaderboard.baserow RUN [MODEL-NAME]
"""

from __future__ import annotations

import sys
from pathlib import Path

from cpt_bench.files import write_json
from cpt_bench.leaderboard.packable import open_run


def publish(run_folder: Path, model: str | None = None) -> Path:
    """Write ``base_row.json`` next to the suite's cards, from row 0 of a finished run."""
    run = open_run(run_folder)
    outcomes = run.scores.outcomes
    scores = {
        name: {"accuracy": round(float(100 * of.strict[0].mean()), 6), "n": of.strict.shape[1]}
        for name, of in outcomes.items()
    }
    name = model or f"{run.suite.name}-base"
    row = {"model": name, "weights": run.facts["base"]["weights"], "scores": scores}
    file = run.suite.folder / "base_row.json"
    write_json(file, row)
    return file


if __name__ == "__main__":
    print(publish(Path(sys.argv[1]), *sys.argv[2:3]))
