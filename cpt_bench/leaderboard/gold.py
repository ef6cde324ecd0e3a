"""Gold answers for verification: test samples without their pictures, and their hashes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.leaderboard.findings import Refused
from cpt_bench.plugins import SUITE, builtin, listing
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, Suite, load_suite
from cpt_bench.suite.reading import suite_folder
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
    """SHA-256 of a question's words and its pictures' bytes: the same for two copies.

    Spaces and case are folded, so that a reformatted copy is still found.
    """
    words = " ".join(question.casefold().split())
    parts = [words, *(hashlib.sha256(image).hexdigest() for image in images)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def open_known_suite(name: str, variant: str, suite_spec: str | None) -> Suite:
    """The installed suite of that name, or the one that the person verifying points to.

    An entry never chooses a path or a module: opening a suite can import code, and an entry is
    data from a stranger. Suites on this machine were installed by its owner.

    Raises:
        Refused: No suite of that name is installed.
    """
    if suite_spec is None:
        return load_suite(_varied(_installed(name), variant))
    suite = load_suite(_varied(find_suite(suite_spec), variant))
    if suite.name != name:
        raise Refused("suite-name", f"is for suite {name!r}, not {suite.name!r}")
    return suite


def find_suite(spec: str) -> Path:
    """The folder of a suite that a person names, without its variant.

    Raises:
        CptBenchError: There is no such suite.
    """
    return suite_folder(split_spec(spec)[0])


def _varied(folder: Path, variant: str) -> Path:
    return folder.with_name(f"{folder.name}@{variant}") if variant else folder


def _installed(name: str) -> Path:
    """The folder of the suite that calls itself ``name``: built in, or of an installed package."""
    if name in builtin("suites"):
        return suite_folder(name)
    found: dict[Path, str] = {}
    for row in listing("suites"):
        with contextlib.suppress(CptBenchError):
            folder = suite_folder(row.name).resolve()
            if read_mapping(folder / SUITE).get("name") == name:
                found[folder] = row.name
    if len(found) == 1:
        return next(iter(found))
    if found:
        names = " and ".join(found.values())
        raise Refused("suite-unknown", f"suite {name!r} is both {names}: name one with --suite")
    known = ", ".join(row.name for row in listing("suites"))
    what = f"no suite {name!r} is installed (there is: {known}): install its package, or name its "
    raise Refused("suite-unknown", f"{what}folder with --suite")


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
    """The gold of one benchmark, or one line on why it is not here."""
    return _gold(suite.place, name)


def base_row(suite: Suite) -> BaseRow | None:
    """``base_row.json`` of the suite; None where the suite publishes none."""
    file = suite.folder / "base_row.json"
    if not file.is_file():
        return None
    data: dict[str, Any] = read_json(file)
    scores = {k: (float(v["accuracy"]), int(v["n"])) for k, v in data["scores"].items()}
    return BaseRow(data["weights"], data["model"], scores)
