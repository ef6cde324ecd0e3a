"""Checks a reproduction of an entry: grades its answers again and computes the verdict from them.

A reproduction is data, like the entry itself: ``report.json`` and the predictions of the rerun. The
verdict never comes from the report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator

from cpt_bench.errors import explain
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.grading import grade
from cpt_bench.leaderboard.checks_files import check_digest
from cpt_bench.leaderboard.comparisons import (
    Answer,
    Answers,
    Comparison,
    compare_rerun,
    compare_sample,
    rerun_scores,
)
from cpt_bench.leaderboard.entry import Entry, FileRef, Strict
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.gold import Gold
from cpt_bench.leaderboard.names import check_names
from cpt_bench.leaderboard.recompute import Seed, expected_cells, stage_name, stages_of
from cpt_bench.leaderboard.rules import check_date
from cpt_bench.leaderboard.strict import lines, read_json, row_of
from cpt_bench.leaderboard.tables import mark_of, name_ids
from cpt_bench.suite import Suite


class ReproductionReport(Strict):
    """``report.json`` of a reproduction.

    Attributes:
        format: The version of this file's format.
        by: Who made the reproduction.
        date: ``YYYY-MM-DD``.
        kind: ``rerun``: the seed was trained again; ``checkpoints``: the published weights answered
            again.
        seed: Which seed of the entry.
        sample: Share of the test samples that were answered, in (0, 1].
        weights: Stage folder to the digest of the weights that answered.
        versions: Versions of packages.
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


class Reproduction(NamedTuple):
    """A reproduction that was checked.

    Attributes:
        report: The report as its author wrote it.
        comparisons: Each number of the entry that was compared, and its tolerance.
        reproduced: Whether all comparisons are within tolerance.
        independent: Whether the person who made it is not an author of the entry, and has no name
            that a reader would take for an author's.
        whole: Whether every trained stage of the seed was trained again, or answered again.
    """

    report: ReproductionReport
    comparisons: tuple[Comparison, ...]
    reproduced: bool
    independent: bool
    whole: bool = True

    @property
    def lifts(self) -> bool:
        """Whether it raises the entry's badge to *reproduced*."""
        return self.reproduced and self.independent and self.whole


def sampled(ids: Iterable[str], share: float, salt: str) -> list[str]:
    """A share of the ids, at least one: those with the lowest hashes, so nobody chooses them."""
    ranked = sorted(ids, key=lambda i: hashlib.sha256(f"{salt} {i}".encode()).digest())
    return ranked[: max(1, round(share * len(ranked)))]


def read_reproduction(
    folder: Path,
    entry: Entry,
    seeds: dict[int, Seed],
    suite: Suite,
    gold: dict[str, Gold],
    out: Report,
) -> Reproduction | None:
    """Check a reproduction's files, grade its answers and compare them with the entry's.

    Returns:
        None when something is wrong with its files; ``out`` then has the errors.
    """
    where = f"reproductions/{folder.name}"
    before = len(out.errors)
    try:
        data = read_json(folder / "report.json")
        report = ReproductionReport.model_validate(data)
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
    for path in sorted(present - set(report.files) - {"report.json"}):
        out.error("unsigned-file", f"{where}/{path}", "is not in report.json")
    for path in sorted(set(report.files) - present):
        out.error("missing-file", f"{where}/{path}", "is listed in report.json but missing")
    for path in sorted(present & set(report.files)):
        check_digest(folder / path, f"{where}/{path}", report.files[path], out)
    if report.seed not in seeds:
        out.error("seed-mismatch", where, f"the entry has no seed {report.seed}")
    check_names({"the name": report.by}, where, out)
    check_date(report.date, where, out, since=entry.date)
    if folder.name.partition("__")[0] != report.date:
        out.error("folder-name", where, f"its report is dated {report.date}")
    if len(out.errors) > before:
        return None
    seed = seeds[report.seed]
    whole = report.kind == "rerun" or report.sample == 1
    answers = _answers(folder, where, seed, suite, gold, whole, out)
    if answers is None or len(out.errors) > before:
        return None
    if report.kind == "checkpoints":
        if any(seed.manifest.weights.get(k) != v for k, v in report.weights.items()):
            out.error("weights", where, "the weights that answered are not the entry's")
        if not set(report.weights) - {"0-base"}:
            out.error("weights", where, "no trained stage answered")
        _check_sample(report, answers, where, seed, suite, gold, out)
        if len(out.errors) > before:
            return None
        comparisons = compare_sample(answers, seed, gold)
    else:
        rerun = rerun_scores(answers, seed, suite, gold)
        if rerun is None:
            out.error("missing-file", where, "a rerun must answer every question of every stage")
            return None
        comparisons = compare_rerun(rerun, answers, seeds, report.seed, gold)
    independent = not entry.may_be_by(report.by)
    order, joint = seed.manifest.order, seed.manifest.joint
    trained = {stage_name(order, t) for t in stages_of(order, joint)[1:]}
    asked = report.kind == "rerun" or trained <= report.weights.keys()
    reproduced = bool(comparisons) and all(c.within for c in comparisons)
    status = Status.verified if reproduced else Status.refuted
    off = [c.name for c in comparisons if not c.within]
    how = f"{report.kind} of seed {report.seed} by {report.by}: " + (
        f"outside tolerance: {', '.join(off)}" if off else f"{len(comparisons)} within tolerance"
    )
    out.claim(f"reproduced {report.date}", reproduced, status, how)
    return Reproduction(report, comparisons, reproduced, independent, asked)


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
    for t, name in expected_cells(suite, order, seed.manifest.joint):
        path = f"predictions/{stage_name(order, t)}/{name}.jsonl.zst"
        file = folder / path
        if not file.is_file():
            continue
        known = {s.id: s for s in gold[name].samples}
        card, cell = suite.card(name), dict[str, Answer]()
        try:
            for line in lines(file):
                row = row_of(line)
                sample = known.get(str(row.get("id")))
                if sample is None or not isinstance(row.get("reply"), str):
                    raise Refused("unknown-id", f"answers {row.get('id')!r}, not in the test split")
                if sample.id in cell:
                    raise Refused("duplicate-id", f"answers {sample.id!r} twice")
                got = grade(row["reply"], sample, suite.protocol.form, matcher_of(card))
                answer = row["reply"] if got.extracted is None else got.extracted
                cell[sample.id] = Answer(got.score, got.lenient, got.format_ok, mark_of(answer))
        except Refused as error:
            out.error(error.code, f"{where}/{path}", error.what)
            return None
        if whole and list(cell) != [*known]:
            name_ids([*cell], [*known], f"{where}/{path}", out)
        answers[t, name] = cell
    return answers


def _check_sample(
    report: ReproductionReport,
    answers: Answers,
    where: str,
    seed: Seed,
    suite: Suite,
    gold: dict[str, Gold],
    out: Report,
) -> None:
    """Check that every stage that answered has the questions drawn by hash, and no others.

    Otherwise somebody could leave out the questions whose answers differ.
    """
    for t, name in expected_cells(suite, seed.manifest.order, seed.manifest.joint):
        stage = stage_name(seed.manifest.order, t)
        drawn = set[str]()
        if stage in report.weights:
            ids = (s.id for s in gold[name].samples)
            drawn = set(sampled(ids, report.sample, report.weights[stage]))
        found = answers.get((t, name), {}).keys()
        if found != drawn:
            what = f"answers {len(found & drawn)} of the {len(drawn)} questions drawn"
            if extra := len(found - drawn):
                what += f", and {extra} others"
            out.error("sample", f"{where}/predictions/{stage}/{name}.jsonl.zst", what)
