"""Somebody's rerun of an entry, read back: its answers are graded again and its verdict computed.

A reproduction is data like the entry itself: ``report.json`` and the predictions of the rerun. Its
verdict is never taken from the report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError, field_validator

from cpt_bench.errors import explain
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.grading import grade
from cpt_bench.leaderboard.checks_files import check_digest
from cpt_bench.leaderboard.entry import Entry, FileRef, Strict
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.gold import Gold
from cpt_bench.leaderboard.recompute import (
    Seed,
    Table,
    expected_cells,
    name_ids,
    score_seed,
    stage_name,
)
from cpt_bench.leaderboard.stats import predicted, wilson
from cpt_bench.leaderboard.strict import lines, read_json, row_of
from cpt_bench.results.scoring import Scores
from cpt_bench.suite import Suite

HEADLINE = ("AvgAcc", "Learn", "FM", "GeneralDelta")
AGREEMENT = 0.97
"""Share of sampled replies that earn the same score from the same weights."""


class ReproductionReport(Strict):
    """``report.json`` of a reproduction.

    Attributes:
        format: Of this file.
        by: Who did it.
        date: ``YYYY-MM-DD``.
        kind: ``rerun``: the seed was trained again; ``checkpoints``: published weights were asked
            again.
        seed: Which seed of the entry.
        sample: Share of the test samples that was asked, in (0, 1].
        weights: Stage folder to the digest of the weights that answered.
        versions: Packages.
        hardware: As in ``environment.json``.
        files: Path to digest and size.
    """

    format: Literal[1]
    by: str = Field(min_length=1, max_length=100)
    date: str = Field(pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}$")
    kind: Literal["rerun", "checkpoints"]
    seed: int = Field(ge=0)
    sample: float = Field(gt=0, le=1)
    weights: dict[str, str]
    versions: dict[str, str]
    hardware: dict[str, Any]
    files: dict[str, FileRef]

    @field_validator("sample", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return float(value) if type(value) is int else value


class Comparison(NamedTuple):
    """One number of the entry beside the rerun's."""

    name: str
    claimed: float
    found: float
    low: float
    high: float

    @property
    def within(self) -> bool:
        return self.low - 1e-9 <= self.found <= self.high + 1e-9


class Reproduction(NamedTuple):
    """A reproduction that was read back.

    Attributes:
        report: As written.
        comparisons: What was compared.
        reproduced: Whether all of it falls within tolerance.
        independent: Whether whoever did it is not an author of the entry.
    """

    report: ReproductionReport
    comparisons: tuple[Comparison, ...]
    reproduced: bool
    independent: bool


def sampled(ids: Iterable[str], share: float, salt: str) -> list[str]:
    """A share of ids that nobody chose: those whose hash with ``salt`` is low; at least one."""
    ranked = sorted(ids, key=lambda i: hashlib.sha256(f"{salt} {i}".encode()).digest())
    return ranked[: max(1, round(share * len(ranked)))]


Answers = dict[tuple[int, str], dict[str, tuple[float, float, bool]]]
"""(stage, benchmark) -> sample id -> strict, lenient, format_ok."""


def read_reproduction(
    folder: Path,
    entry: Entry,
    seeds: dict[int, Seed],
    suite: Suite,
    gold: dict[str, Gold],
    out: Report,
) -> Reproduction | None:
    """Check a reproduction's files, grade its answers and compare; None when it cannot be used."""
    where = f"reproductions/{folder.name}"
    before = len(out.errors)
    try:
        data = read_json(folder / "report.json")
        said = ReproductionReport.model_validate(data)
    except FileNotFoundError:
        out.error("missing-file", f"{where}/report.json", "is not here")
        return None
    except Refused as error:
        out.error(error.code, f"{where}/report.json", error.what)
        return None
    except ValidationError as error:
        out.error("schema", f"{where}/report.json", explain(error))
        return None
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    for path in sorted(present - set(said.files) - {"report.json"}):
        out.error("unsigned-file", f"{where}/{path}", "is not in report.json")
    for path in sorted(set(said.files) - present):
        out.error("missing-file", f"{where}/{path}", "is in report.json and not here")
    for path in sorted(present & set(said.files)):
        check_digest(folder / path, f"{where}/{path}", said.files[path], out)
    if said.seed not in seeds:
        out.error("seed-mismatch", where, f"the entry has no seed {said.seed}")
    if len(out.errors) > before:
        return None
    seed = seeds[said.seed]
    whole = said.kind == "rerun" or said.sample == 1
    answers = _answers(folder, where, seed, suite, gold, whole, out)
    if answers is None or len(out.errors) > before:
        return None
    if said.kind == "checkpoints":
        if any(seed.manifest.weights.get(k) != v for k, v in said.weights.items()):
            out.error("weights", where, "other weights than the entry's answered")
        if not set(said.weights) - {"0-base"}:
            out.error("weights", where, "no weights of a trained stage answered")
        _check_sample(said, answers, where, seed, suite, gold, out)
        if len(out.errors) > before:
            return None
        comparisons = compare_sample(answers, seed, gold)
    else:
        rerun = _rerun_scores(answers, seed, suite, gold)
        if rerun is None:
            out.error("missing-file", where, "a rerun answers every question of every stage")
            return None
        comparisons = compare_rerun(rerun, seeds, said.seed)
    independent = not entry.is_by(said.by)
    reproduced = bool(comparisons) and all(c.within for c in comparisons)
    status = Status.verified if reproduced else Status.refuted
    off = [c.name for c in comparisons if not c.within]
    how = f"{said.kind} of seed {said.seed} by {said.by}: " + (
        f"outside tolerance: {', '.join(off)}" if off else f"{len(comparisons)} within tolerance"
    )
    out.claim(f"reproduced {said.date}", reproduced, status, how)
    return Reproduction(said, comparisons, reproduced, independent)


def _answers(
    folder: Path,
    where: str,
    seed: Seed,
    suite: Suite,
    gold: dict[str, Gold],
    whole: bool,
    out: Report,
) -> Answers | None:
    answers: Answers = {}
    order = seed.manifest.order
    for t, name in expected_cells(suite, order):
        path = f"predictions/{stage_name(order, t)}/{name}.jsonl.zst"
        file = folder / path
        if not file.is_file():
            continue
        known = {s.id: s for s in gold[name].samples}
        card, cell = suite.card(name), dict[str, tuple[float, float, bool]]()
        try:
            for line in lines(file):
                row = row_of(line)
                sample = known.get(str(row.get("id")))
                if sample is None or not isinstance(row.get("reply"), str):
                    raise Refused("unknown-id", f"answers {row.get('id')!r}, not in the test split")
                if sample.id in cell:
                    raise Refused("duplicate-id", f"answers {sample.id!r} twice")
                got = grade(row["reply"], sample, suite.protocol.form, matcher_of(card))
                cell[sample.id] = got.score, got.lenient, got.format_ok
        except Refused as error:
            out.error(error.code, f"{where}/{path}", error.what)
            return None
        if whole and list(cell) != [*known]:
            name_ids([*cell], [*known], f"{where}/{path}", out)
        answers[t, name] = cell
    return answers


def _check_sample(
    said: ReproductionReport,
    answers: Answers,
    where: str,
    seed: Seed,
    suite: Suite,
    gold: dict[str, Gold],
    out: Report,
) -> None:
    """Every cell of the stages that answered holds the questions drawn by hash, and no others.

    Whoever could leave questions out would leave out those that come out differently.
    """
    for t, name in expected_cells(suite, seed.manifest.order):
        stage = stage_name(seed.manifest.order, t)
        drawn = set[str]()
        if stage in said.weights:
            ids = (s.id for s in gold[name].samples)
            drawn = set(sampled(ids, said.sample, said.weights[stage]))
        found = answers.get((t, name), {}).keys()
        if found != drawn:
            what = f"answers {len(found & drawn)} of the {len(drawn)} questions drawn"
            if extra := len(found - drawn):
                what += f", and {extra} others"
            out.error("sample", f"{where}/predictions/{stage}/{name}.jsonl.zst", what)


def _rerun_scores(
    answers: Answers, seed: Seed, suite: Suite, gold: dict[str, Gold]
) -> Scores | None:
    tables = {}
    for cell, rows in answers.items():
        graded = np.array([[float(v) for v in row] for row in rows.values()]).T
        values = np.vstack([graded, np.full((2, graded.shape[1]), np.nan)])
        tables[cell] = Table(values, "", "", np.zeros(0, np.uint64), 0, False)
    return score_seed(suite, seed.manifest.order, tables, gold)


def compare_rerun(rerun: Scores, seeds: dict[int, Seed], seed: int) -> tuple[Comparison, ...]:
    """Headline numbers of a rerun against where one more seed of the entry should fall.

    A rerun on other hardware is, after a few hundred steps, another draw: it is held to the 95 %
    prediction interval of the entry's seeds, and to no less than the width of the interval over
    test samples.
    """
    out = []
    for key in HEADLINE:
        passports = {n: s.scores.metrics[key] for n, s in seeds.items() if s.scores is not None}
        found = rerun.metrics[key]["value"]
        values = [p["value"] for p in passports.values()]
        if found is None or not values or any(v is None for v in values):
            continue
        own = passports[seed]
        half = (own["interval"]["high"] - own["interval"]["low"]) / 2
        low, high = predicted(values, half)
        out.append(Comparison(key, own["value"], found, low, high))
    return tuple(out)


def compare_sample(answers: Answers, seed: Seed, gold: dict[str, Gold]) -> tuple[Comparison, ...]:
    """Sampled answers of the same weights against the entry's answers to the same questions."""
    out = []
    agree = total = 0
    for (t, name), cell in answers.items():
        table = seed.tables[t, name]
        position = {s.id: i for i, s in enumerate(gold[name].samples)}
        claimed = np.array([table.outcomes[0, position[i]] for i in cell])
        found = np.array([row[0] for row in cell.values()])
        if len(found) == 0:
            continue
        agree += int((claimed == found).sum())
        total += len(found)
        low, high = wilson(100 * float(claimed.mean()), len(claimed))
        label = f"{stage_name(seed.manifest.order, t)}/{name}"
        out.append(
            Comparison(label, 100 * float(claimed.mean()), 100 * float(found.mean()), low, high)
        )
    if total:
        share = 100 * agree / total
        out.insert(0, Comparison("agreement, % of samples", 100.0, share, 100 * AGREEMENT, 100.0))
    return tuple(out)
