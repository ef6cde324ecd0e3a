"""Gold answers for verification: test samples without their pictures, and their hashes."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.findings import Refused
from cpt_bench.plugins import SUITE, builtin, resolve
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, Suite, load_suite
from cpt_bench.suite.variants import split_spec


class Gold(NamedTuple):
    """One benchmark's test split.

    Attributes:
        samples: In the published order; their pictures are dropped, grading needs none.
        hashes: :func:`sample_hash` of each.
    """

    samples: tuple[Sample, ...]
    hashes: frozenset[str]


class BaseRow(NamedTuple):
    """The published scores of a suite's base model.

    Attributes:
        weights: Digest of the base weights.
        model: Its name.
        scores: Benchmark to (accuracy in percent, n).
    """

    weights: str
    model: str
    scores: dict[str, tuple[float, int]]


def sample_hash(question: str, images: Sequence[bytes]) -> str:
    """What two copies of one question share: SHA-256 of its words and of its pictures' bytes.

    Spaces and case are folded, so that a reformatted copy is still found.
    """
    words = " ".join(question.casefold().split())
    parts = [words, *(hashlib.sha256(image).hexdigest() for image in images)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def open_known_suite(name: str, variant: str, suite_spec: str | None) -> Suite:
    """The installed suite of that name, or the one that the person verifying points to.

    An entry never chooses a path or a module: opening a suite can import code, and an entry is
    data from a stranger.

    Raises:
        Refused: No suite of that name ships with this package.
    """
    if suite_spec is not None:
        suite = load_suite(_varied(find_suite(suite_spec), variant))
        if suite.name != name:
            raise Refused("suite-name", f"is for suite {name!r}, not {suite.name!r}")
        return suite
    return load_suite(_varied(_builtin(name), variant))


def find_suite(spec: str) -> Path:
    """The folder of a suite that a person names, without its variant."""
    name = split_spec(spec)[0]
    given = name not in builtin("suites") and (Path(name) / SUITE).is_file()
    return Path(name) if given else _builtin(name)


def _varied(folder: Path, variant: str) -> Path:
    return folder.with_name(f"{folder.name}@{variant}") if variant else folder


def _builtin(name: str) -> Path:
    if name not in builtin("suites"):
        known = ", ".join(builtin("suites"))
        raise Refused("suite-unknown", f"no suite {name!r} ships with cptbench (there is: {known})")
    return Path(resolve("suites", name).value)


@functools.lru_cache(maxsize=64)
def _gold(folder: Path, name: str) -> Gold | str:
    card = load_suite(folder).card(name)
    try:
        loaded = load_split(card, "test")
    except CptBenchError as error:
        return str(error)
    samples, hashes = [], set()
    for sample in loaded:
        hashes.add(sample_hash(sample.question, sample.images))
        samples.append(sample.model_copy(update={"images": (), "rationale": None}))
    return Gold(tuple(samples), frozenset(hashes))


def gold_of(suite: Suite, name: str) -> Gold | str:
    """The gold of one benchmark, or in one line why it is not here."""
    return _gold(suite.place, name)


def base_row(suite: Suite) -> BaseRow | None:
    """``base_row.json`` of the suite; None where the suite publishes none."""
    file = suite.folder / "base_row.json"
    if not file.is_file():
        return None
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    scores = {k: (float(v["accuracy"]), int(v["n"])) for k, v in data["scores"].items()}
    return BaseRow(data["weights"], data["model"], scores)
