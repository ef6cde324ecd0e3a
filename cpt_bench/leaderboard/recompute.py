"""From the predictions of one seed to its numbers, and the comparison with what is claimed."""

from __future__ import annotations

import hashlib
import math
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.grading import Grade, grade
from cpt_bench.grading.reading import read_form
from cpt_bench.leaderboard.entry import Manifest
from cpt_bench.leaderboard.findings import Refused, Report
from cpt_bench.leaderboard.gold import Gold
from cpt_bench.leaderboard.strict import lines, row_of
from cpt_bench.results.folder import stage_name as stage_name  # its home; asked for here
from cpt_bench.results.scoring import Outcomes, Scores, compute
from cpt_bench.suite import AnswerForm, Suite, TaskCard

TOLERANCE = 1e-9
REMEMBERED = 50_000
"""Grades kept of one benchmark: enough for most repeats; memory does not grow with the entry."""
GRADED = ("extracted", "score", "lenient", "format_ok")
ABRIDGED = "reply_sha256"
"""Key of a row whose thought was cut: SHA-256 of the whole reply, which is in the side file."""


class Table(NamedTuple):
    """One file of predictions, graded.

    Attributes:
        outcomes: Shape (5, n): strict, lenient, format_ok, tokens, whether it reasons.
        raw: SHA-256 of the unpacked bytes.
        replies: SHA-256 of ``marks``.
        marks: CRC-32 of each reply, shape (n,).
        thinking: Replies that begin with a thought.
        abridged: Whether some thoughts are cut.
    """

    outcomes: np.ndarray[Any, np.dtype[np.float64]]
    raw: str
    replies: str
    marks: np.ndarray[Any, np.dtype[np.uint64]]
    thinking: int
    abridged: bool


class Seed(NamedTuple):
    """What was recomputed of one seed.

    Attributes:
        manifest: Of the seed.
        tables: (stage, benchmark) to its graded predictions.
        scores: Matrix and metrics; None when a cell is missing or gold is not here.
    """

    manifest: Manifest
    tables: dict[tuple[int, str], Table]
    scores: Scores | None


def expected_cells(suite: Suite, order: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Every (stage, benchmark) that the protocol evaluates."""
    ordered = suite.model_copy(update={"sequence": order})
    for stage in range(len(order) + 1):
        for name in ordered.benchmarks_after(stage):
            yield stage, name


def grade_table(
    file: Path,
    where: str,
    card: TaskCard,
    gold: Gold,
    suite: Suite,
    lane: str,
    report: Report,
    last: dict[tuple[int, str], Grade] | None = None,
) -> Table | None:
    """Grade one file of predictions, a line at a time; None when it cannot be.

    Args:
        file: The file.
        where: What findings call it.
        card: Of the task.
        gold: Of the task.
        suite: With the protocol.
        lane: Of the run; only some lanes know their tokens.
        report: Receives findings.
        last: Grades by (sample, reply): most replies were given in another stage or seed before.
    """
    last = {} if last is None else last
    form, matcher, longest = suite.protocol.form, matcher_of(card), _longest(suite)
    n, ids = len(gold.samples), [s.id for s in gold.samples]
    outcomes, marks = list[tuple[float, float, float, float, float]](), list[int]()
    raw, found = hashlib.sha256(), list[str]()
    thinking, abridged = 0, False
    with_opening = form.thought[0]
    try:
        for i, line in enumerate(lines(file, digest=raw)):
            try:
                row = row_of(line)
                check_row(row, lane, longest)
            except Refused as error:
                raise Refused(error.code, f"line {i + 1} {error.what}") from None
            if i > n + 1000:
                raise Refused("unknown-id", f"has more than the {n} samples of the test split")
            found.append(row["id"])
            if i >= n or row["id"] != ids[i]:
                continue  # named below, once all ids are known
            sample, reply = gold.samples[i], row["reply"]
            known = last.get((i, reply))
            if known is None:
                if len(last) >= REMEMBERED:
                    last.clear()
                known = grade(reply, sample, form, matcher)
                if len(reply) < 2000:
                    last[i, reply] = known
            got = known
            length = math.nan if row["tokens"] is None else row["tokens"]
            reasons = with_opening in reply
            outcomes.append((got.score, got.lenient, got.format_ok, length, reasons))
            check_grades(row, got, where, i, report)
            marks.append(zlib.crc32(reply.encode()))
            if reasons:
                thinking += begins_with_thought(reply, form)
            abridged |= ABRIDGED in row
    except Refused as error:
        report.error(error.code, where, error.what)
        return None
    if found != ids:
        name_ids(found, ids, where, report)
        return None
    table, crcs = np.array(outcomes, dtype=np.float64).T, np.array(marks, dtype=np.uint64)
    replies = hashlib.sha256(crcs.tobytes()).hexdigest()
    return Table(table, raw.hexdigest(), replies, crcs, thinking, abridged)


def begins_with_thought(reply: str, form: AnswerForm) -> bool:
    return bool(form.thought[0]) and reply.lstrip().startswith(form.thought[0])


def response_style(thinking: int, total: int) -> Literal["direct", "thinking", "mixed"]:
    """``thinking`` when nine replies in ten begin with a thought, ``direct`` when one in ten do."""
    share = thinking / max(total, 1)
    return "thinking" if share >= 0.9 else "direct" if share <= 0.1 else "mixed"


def _longest(suite: Suite) -> int:
    return suite.protocol.decoding.max_new_tokens


_KEYS = ("id", "reply", "tokens")
_ALL_KEYS = (*_KEYS, "extracted", "score", "lenient", "format_ok")


def check_row(row: dict[str, Any], lane: str, longest: int) -> None:
    for key in _KEYS:
        if key not in row:
            raise Refused("schema", f"has no {key!r}")
    tokens, reply = row["tokens"], row["reply"]
    if type(row["id"]) is not str or type(reply) is not str:
        raise Refused("schema", "has an id or a reply that is not text")
    if type(tokens) is not int:
        if tokens is not None or lane not in ("endpoint", "predictions"):
            raise Refused("schema", f"has tokens {tokens!r}, not a whole number")
    elif not 0 <= tokens <= longest:
        raise Refused("tokens", f"has {tokens} tokens; the protocol allows {longest}")
    elif tokens == 0 and reply.strip():
        raise Refused("tokens", "has a reply of 0 tokens")
    elif len(reply) > 256 * max(tokens, 1) and ABRIDGED not in row:
        raise Refused("tokens", f"has {len(reply)} characters in {tokens} tokens")
    if tuple(row) == _ALL_KEYS and type(row["extracted"]) in (str, type(None)):
        return  # the rest of such a row is compared with what the reply earns
    if len(row) > 24:
        raise Refused("schema", f"has {len(row)} keys")
    for key, value in row.items():
        if type(value) is dict or type(value) is list:
            raise Refused("schema", f"has a list or mapping under {key!r}")


def check_grades(row: dict[str, Any], got: Grade, where: str, i: int, report: Report) -> None:
    """The grades written beside a reply are those it earns."""
    if (
        row.get("score") == got.score
        and row.get("lenient") == got.lenient
        and row.get("extracted") == got.extracted
        and row.get("format_ok") is got.format_ok
    ):
        return
    for key in GRADED:
        if key in row and row[key] != getattr(got, key):
            what = f"{row['id']}: claims {key} {row[key]!r}; the reply earns {getattr(got, key)!r}"
            report.error("grade", f"{where}:{i + 1}", what)
            return


def name_ids(found: list[str], wanted: list[str], where: str, report: Report) -> None:
    """Say how a list of ids differs from the published one."""
    known, counts = set(wanted), dict[str, int]()
    for name in found:
        counts[name] = counts.get(name, 0) + 1
    for name, count in counts.items():
        if count > 1:
            report.error("duplicate-id", where, f"answers {name!r} {count} times")
        if name in known:
            continue
        if (plain := unicodedata.normalize("NFKC", name).strip()) in known and plain != name:
            report.error("unicode-form", where, f"the id {name!a} is {plain!r} in another form")
        else:
            report.error("unknown-id", where, f"{name!r} is not in the test split")
    absent = [name for name in wanted if name not in counts]
    for name in absent[:5]:
        report.error("missing-id", where, f"has no answer to {name!r}")
    if len(absent) > 5:
        report.error("missing-id", where, f"and none to {len(absent) - 5} more")
    if not absent and len(counts) == len(found) and set(counts) == known:
        first = next(i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
        what = f"the order of samples is not the published one, from line {first + 1} on"
        report.error("id-order", where, what)


def abridge(reply: str, form: AnswerForm, keep: int) -> str:
    """The reply with a thought of more than ``keep`` characters cut to its length; grades alike.

    Only a reply that has the form is cut: what is inside its thought can then not matter.
    """
    text = reply.strip()
    opening, closing = form.thought
    if not opening or form.kind:
        return reply  # other forms are read elsewhere than after the thought
    if not text.startswith(opening) or read_form(reply, form) is None:
        return reply
    thought, _, rest = text[len(opening) :].partition(closing)
    if len(thought) <= keep:
        return reply
    return f"{opening}[{len(thought)} characters]{closing}{rest}"


def check_replies(file: Path, table: Path, form: AnswerForm, where: str, report: Report) -> None:
    """A side file of whole replies belongs to its table: same hashes, same text but the thought."""
    try:
        whole = {}
        for line in lines(file):
            row = row_of(line)
            if row.keys() != {"id", "reply"} or not all(type(v) is str for v in row.values()):
                raise Refused("schema", "has a line that is not {id, reply}")
            whole[row["id"]] = row["reply"]
        for line in lines(table):
            row = row_of(line)
            if ABRIDGED not in row:
                continue
            reply = whole.pop(row["id"], None)
            if reply is None:
                raise Refused("side-file", f"has no reply to {row['id']!r}")
            if hashlib.sha256(reply.encode()).hexdigest() != row[ABRIDGED]:
                raise Refused("side-file", f"the reply to {row['id']!r} has another hash")
            if abridge(reply, form, 0) != row["reply"]:
                raise Refused("side-file", f"the reply to {row['id']!r} is cut differently")
        if whole:
            raise Refused("side-file", f"replies to {next(iter(whole))!r}, which nobody cut")
    except Refused as error:
        report.error(error.code, where, error.what)


def score_seed(
    suite: Suite,
    order: tuple[str, ...],
    tables: dict[tuple[int, str], Table],
    gold: dict[str, Gold],
    forced: dict[str, dict[str, np.ndarray[Any, np.dtype[np.float64]]]] | None = None,
    divergence: dict[int, dict[str, list[dict[str, Any]]]] | None = None,
) -> Scores | None:
    """Matrix and metrics; None when a cell is missing.

    The same outcomes as :func:`cpt_bench.results.scoring.score` makes from a run folder.
    """
    if any(cell not in tables for cell in expected_cells(suite, order)):
        return None
    outcomes = {}
    for name in (*order, *suite.general):
        stacked = np.full((5, len(order) + 1, len(gold[name].samples)), np.nan)
        for stage in range(len(order) + 1):
            if (stage, name) in tables:
                stacked[:, stage] = tables[stage, name].outcomes
        strict, lenient, form, tokens, reasoned = stacked
        extra = (forced or {}).get(name)
        outcomes[name] = Outcomes(strict, lenient, form, tokens, reasoned, extra)
    return compute(suite.reordered(order), outcomes, divergence)


# --------------------------------------------------------------------- claimed and recomputed


class Difference(NamedTuple):
    """One place where what is claimed is not what comes out."""

    path: str
    claimed: Any
    found: Any


def differences(claimed: Any, found: Any, path: str = "") -> Iterator[Difference]:
    """Where the numbers, names and gaps of ``found`` are claimed differently; words may be.

    A key that is claimed and cannot be recomputed is no difference.
    """
    if isinstance(found, dict):
        if not isinstance(claimed, dict):
            yield Difference(path, claimed, found)
            return
        for key, value in found.items():
            if isinstance(value, str) and path:
                continue  # a passport's formula or source may be worded anew
            if key not in claimed:
                yield Difference(f"{path}.{key}".lstrip("."), None, value)
            else:
                yield from differences(claimed[key], value, f"{path}.{key}".lstrip("."))
    elif isinstance(found, list):
        if not isinstance(claimed, list) or len(claimed) != len(found):
            yield Difference(path, claimed, found)
            return
        for i, (a, b) in enumerate(zip(claimed, found, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif isinstance(found, int | float) and not isinstance(found, bool):
        number = isinstance(claimed, int | float) and not isinstance(claimed, bool)
        if not number or abs(claimed - found) > TOLERANCE * max(1.0, abs(found)):
            yield Difference(path, claimed, found)
    elif claimed != found:
        yield Difference(path, claimed, found)
