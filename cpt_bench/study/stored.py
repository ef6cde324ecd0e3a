"""A run in one file: the models' replies and their scores, without weights.

::

    <name>.jsonl.zst     JSON Lines in one zstd frame
      {"kind": "run", …}                              settings, seed, order, versions
      {"kind": "answers", "stage": 0, "name": …}      replies and grades, in the test split's order
      {"kind": "forced", "prefix": …, "name": …}      lost samples, asked with a forced beginning
      {"kind": "kl", "stage": 1, "name": …}           KL to the base, one number per prompt
      {"kind": "training", "stage": 1, …}             means of the training figures over the steps
      {"kind": "claims", …}                           the matrix and the numbers computed from it

A run of ``nano`` takes about 40 KB. ``cptbench verify`` grades the replies again and recomputes
every number; runs from before a measurement existed lack its lines, and are complete without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from cpt_bench.leaderboard.findings import Refused
from cpt_bench.leaderboard.strict import lines, row_of
from cpt_bench.results.folder import is_joint
from cpt_bench.results.outcomes import Outcomes

FORMAT: Final = 1
ENDING: Final = ".jsonl.zst"
KINDS: Final = ("run", "answers", "forced", "kl", "training", "claims")

Row = dict[str, Any]


class Stored(NamedTuple):
    """A stored run, as in its file.

    Attributes:
        name: The file's name without its suffix.
        facts: The line of kind ``run``.
        answers: (stage, benchmark) to its line.
        forced: (prefix, benchmark) to its line.
        kl: (stage, benchmark) to its line.
        training: Stage to its line.
        claims: The line of kind ``claims``.
    """

    name: str
    facts: Row
    answers: dict[tuple[int, str], Row]
    forced: dict[tuple[str, str], Row]
    kl: dict[tuple[int, str], Row]
    training: dict[int, Row]
    claims: Row

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.facts["order"])

    @property
    def joint(self) -> bool:
        return is_joint(self.facts)

    def rows(self) -> list[int]:
        """The rows of R that this kind of run has."""
        last = len(self.order)
        return [0, last] if self.joint else [*range(last + 1)]

    def outcomes(self, name: str) -> Outcomes:
        """One benchmark's per-sample scores, as from a run folder."""
        mine = [row["strict"] for (_, other), row in self.answers.items() if other == name]
        if not mine:
            raise KeyError(f"answers of {name}")
        n = len(mine[0])
        table = np.full((4, len(self.order) + 1, n), np.nan)
        for t in range(len(self.order) + 1):
            if (t, name) in self.answers:
                row = self.answers[t, name]
                table[:3, t] = row["strict"], row["lenient"], row["form"]
                table[3, t] = [np.nan if v is None else v for v in row["tokens"]]
        found = {}
        for (prefix, other), row in self.forced.items():
            if other == name:
                found[prefix] = np.full(n, np.nan)
                found[prefix][row["at"]] = row["lenient"]
        return Outcomes(table[0], table[1], table[2], table[3], None, found or None)


def read(file: Path) -> Stored:
    """Read a stored run, strictly.

    Raises:
        Refused: It is not a stored run; the message has the reason.
    """
    found = Stored(file.name.removesuffix(ENDING), {}, {}, {}, {}, {}, {})
    for number, line in enumerate(_lines(file), 1):
        try:
            _take(found, line)
        except KeyError as error:
            raise Refused("schema", f"line {number} has no {error}", where=file.name) from None
    if not found.facts or not found.claims:
        raise Refused(
            "schema", "has no line of kind run or no line of kind claims", where=file.name
        )
    if found.facts.get("format") != FORMAT:
        what = f"has format {found.facts.get('format')!r}; this cptbench reads {FORMAT}"
        raise Refused("format", what, where=file.name)
    return found


def _lines(file: Path) -> Iterator[Row]:
    for line in lines(file):
        yield row_of(line)


def _take(found: Stored, row: Row) -> None:
    kind = row["kind"]
    if kind == "run":
        found.facts.update(row)
    elif kind == "answers":
        found.answers[row["stage"], row["name"]] = row
    elif kind == "forced":
        found.forced[row["prefix"], row["name"]] = row
    elif kind == "kl":
        found.kl[row["stage"], row["name"]] = row
    elif kind == "training":
        found.training[row["stage"]] = row
    elif kind == "claims":
        found.claims.update(row)
    else:
        raise Refused("schema", f"has a line of unknown kind {kind!r}")


def read_all(results: Path) -> list[Stored]:
    """All stored runs below a folder, by name."""
    return [read(file) for file in sorted(results.glob(f"**/*{ENDING}"))]


def stored_in(places: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The stored runs that are, or are in, ``places``; and the places with anything else."""
    files: list[Path] = []
    rest = []
    for place in places:
        inside = sorted(place.glob(f"*{ENDING}")) if place.is_dir() else []
        if place.name.endswith(ENDING) and not place.is_dir():
            files.append(place)
        elif inside:
            files += inside
        else:
            rest.append(place)
    return files, rest
