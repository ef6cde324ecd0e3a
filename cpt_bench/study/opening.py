"""Opens a study: its runs, and its claims with their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.study.about import read_about
from cpt_bench.study.claims import Claim, Elsewhere, judged, read_claims, short
from cpt_bench.study.evidence import Evidence, find
from cpt_bench.study.points import Points, other_bases, points
from cpt_bench.study.power import corrected
from cpt_bench.study.stored import read_all
from cpt_bench.suite import open_suite
from cpt_bench.sweep.spec import cells, read_sweep


class Beside(NamedTuple):
    """The verdicts of another study on the same claims.

    Attributes:
        suite: The suite that it is about.
        page: Its page, from this study's page.
        found: A claim's id to its verdict there, uncorrected.
    """

    suite: str
    page: str
    found: Mapping[str, str]


class Study(NamedTuple):
    """A study with its verdicts, before anything is written.

    Attributes:
        folder: Its folder.
        points: Its runs from the suite's own base model.
        claims: Its claims, judged by these.
        evidence: What each claim is judged by.
        planned: How many runs its sweep file has.
        beside: Another study of the same claims.
        others: The name of each other base model to the runs from it.
    """

    folder: Path
    points: Points
    claims: tuple[Claim, ...]
    evidence: tuple[Evidence, ...]
    planned: int
    beside: Beside | None = None
    others: Mapping[str, Points] = MappingProxyType({})

    @property
    def runs(self) -> int:
        """How many runs it counts, from all base models."""
        return sum(len(points.used) for points in (self.points, *self.others.values()))

    @property
    def page(self) -> Path:
        """The study's page: ``docs/study.md`` for the folder ``docs/study/``."""
        return self.folder.with_suffix(".md")


def open_study(folder: Path) -> Study:
    """Read a study's runs and judge its claims.

    Raises:
        CptBenchError: A file is missing or broken; the error names it.
    """
    sweep = read_sweep(folder / "sweep.yaml")
    runs = read_all(folder / "results")
    if not runs:
        raise CptBenchError(
            "no stored runs", where=folder / "results", todo="Store some: cptbench study store RUN"
        )
    found = points(runs, open_suite(sweep.suite), read_about(folder))
    asked = read_claims(folder / "claims.yaml")
    evidence = tuple(find(found, claim.evidence, claim.id) for claim in asked)
    claims = judge_all(asked, evidence)
    others = {
        found.about.bases.get(base, base[:12]): points(runs, found.suite, found.about, base)
        for base in other_bases(runs, found.suite)
    }
    for name, there in others.items():
        claims = tuple(with_base(claim, there, name) for claim in claims)
    second = beside(folder, found.about.beside)
    return Study(folder, found, claims, evidence, planned(folder), second, others)


def beside(folder: Path, name: str) -> Beside | None:
    """The study called ``name`` next to ``folder``; None for an empty name.

    Raises:
        CptBenchError: That study is missing or broken; the error names the file.
    """
    if not name:
        return None
    other = folder.parent / name
    found = {claim.id: claim.verdict for claim in read_claims(other / "claims.yaml")}
    return Beside(read_sweep(other / "sweep.yaml").suite, f"{name}.md", found)


def with_base(claim: Claim, there: Points, name: str) -> Claim:
    """The claim with its verdict from another base model, where that has the runs."""
    elsewhere = find(there, claim.evidence, claim.id)
    if elsewhere.value is None:
        return claim
    found = judged(claim, elsewhere)
    verdict = Elsewhere(verdict=found.verdict, because=found.because, runs=elsewhere.runs)
    return claim.model_copy(update={"bases": {**claim.bases, name: verdict}})


def judge_all(asked: Sequence[Claim], evidence: Sequence[Evidence]) -> tuple[Claim, ...]:
    """The claims with their verdicts, raw and corrected for their number."""
    claims = [judged(claim, found) for claim, found in zip(asked, evidence, strict=True)]
    return tuple(
        claim.model_copy(
            update={
                "p": None if p is None else short(p),
                "p_holm": None if after is None else short(after),
                "corrected": verdict,
            }
        )
        for claim, (p, after, verdict) in zip(claims, corrected(claims, evidence), strict=True)
    )


def planned(folder: Path) -> int:
    """How many different runs the sweep file has; a variant's usual value does not add a run."""
    usual = {f"{key}={value}" for key, value in read_about(folder).variants.items()}
    distinct = {
        cell._replace(settings=tuple(sorted({*cell.settings} - usual)), where="")
        for cell in cells(read_sweep(folder / "sweep.yaml"))
    }
    return len(distinct)
