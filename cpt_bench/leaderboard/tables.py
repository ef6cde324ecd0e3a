"""Reads one file of predictions strictly, grades it, and compares it with the run's ledger."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.files import HALVES
from cpt_bench.grading import Grade, grade
from cpt_bench.grading.reading import read_form
from cpt_bench.leaderboard.findings import Refused, Report
from cpt_bench.leaderboard.gold import Gold
from cpt_bench.leaderboard.strict import lines, row_of
from cpt_bench.suite import AnswerForm, Suite, TaskCard

REMEMBERED = 50_000
"""Grades of one benchmark to remember: enough for most repeats, whatever the entry's size."""
GRADED = ("extracted", "score", "lenient", "format_ok")
ABRIDGED = "reply_sha256"
"""Key of a row whose thought was cut: SHA-256 of the whole reply, which is in the side file."""
LONG_THOUGHT: Final = 400
"""Characters of a thought beyond which it goes to the side file."""
MOST_CHARACTERS: Final = 256
"""Of a token."""

_SHA = re.compile("[0-9a-f]{64}")
Marks = npt.NDArray[np.uint64]


class Table(NamedTuple):
    """One file of predictions, graded.

    Attributes:
        outcomes: Shape (5, n): strict, lenient, format_ok, tokens, whether it reasons.
        raw: SHA-256 of the unpacked bytes.
        marks: CRC-32 of each reply, shape (n,).
        answers: CRC-32 of the answer found in each, case and spaces folded, shape (n,).
        thinking: Replies that begin with a thought.
        cut: Replies whose thought is cut.
    """

    outcomes: npt.NDArray[np.float64]
    raw: str
    marks: Marks
    answers: Marks
    thinking: int
    cut: int


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
    """Grade one file of predictions line by line; None when that is not possible.

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
    form, matcher = suite.protocol.form, matcher_of(card)
    longest = suite.protocol.decoding.max_new_tokens
    n, ids = len(gold.samples), [s.id for s in gold.samples]
    outcomes, marks = list[tuple[float, float, float, float, float]](), list[int]()
    raw, found, answers = hashlib.sha256(), list[str](), list[int]()
    thinking = cut = 0
    try:
        for i, line in enumerate(lines(file, digest=raw)):
            try:
                row = row_of(line)
                check_row(row, lane, longest)
                if ABRIDGED in row:
                    check_cut(row, form)
                    cut += 1
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
            reasons = form.holds_thought(reply)
            outcomes.append((got.score, got.lenient, got.format_ok, length, reasons))
            check_grades(row, got, where, i, report)
            marks.append(zlib.crc32(reply.encode()))
            answers.append(mark_of(reply if got.extracted is None else got.extracted))
            if reasons:
                thinking += form.begins_with_thought(reply)
    except Refused as error:
        report.error(error.code, where, error.what)
        return None
    if found != ids:
        name_ids(found, ids, where, report)
        return None
    table, kinds = np.array(outcomes, dtype=np.float64).T, np.uint64
    crcs, said = np.array(marks, dtype=kinds), np.array(answers, dtype=kinds)
    return Table(table, raw.hexdigest(), crcs, said, thinking, cut)


def mark_of(answer: str) -> int:
    """CRC-32 of an answer; another case, spacing or Unicode form of it has the same."""
    return zlib.crc32(" ".join(unicodedata.normalize("NFKC", answer).casefold().split()).encode())


def response_style(thinking: int, total: int) -> Literal["direct", "thinking", "mixed"]:
    """``thinking`` when nine replies in ten begin with a thought, ``direct`` when one in ten do."""
    share = thinking / max(total, 1)
    return "thinking" if share >= 0.9 else "direct" if share <= 0.1 else "mixed"


# ----------------------------------------------------------------------------------------- rows

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
    elif len(reply) > MOST_CHARACTERS * max(tokens, 1):
        raise Refused("tokens", f"has {len(reply)} characters in {tokens} tokens")
    if tuple(row) == _ALL_KEYS and type(row["extracted"]) in (str, type(None)):
        return  # the rest of such a row is compared with what the reply earns
    if len(row) > 24:
        raise Refused("schema", f"has {len(row)} keys")
    for key, value in row.items():
        if type(value) is dict or type(value) is list:
            raise Refused("schema", f"has a list or mapping under {key!r}")


def check_cut(row: dict[str, Any], form: AnswerForm) -> None:
    """A row that calls its thought cut has one, in the one way that :func:`abridge` writes it."""
    mark, reply, tokens = row[ABRIDGED], row["reply"], row["tokens"]
    if type(mark) is not str or not _SHA.fullmatch(mark):
        raise Refused("cut", f"has {ABRIDGED} {mark!r}, not a SHA-256")
    opening, closing = form.thought
    length = re.match(re.escape(opening) + r"\[([1-9][0-9]{0,7}) characters\]", reply)
    if not opening or form.kind or length is None or not reply[length.end() :].startswith(closing):
        raise Refused("cut", f"has {ABRIDGED}, but its reply has no thought that was cut")
    count = int(length[1])
    if count <= LONG_THOUGHT:
        raise Refused("cut", f"cuts a thought of {count} characters; the limit is {LONG_THOUGHT}")
    if tokens is not None and count > MOST_CHARACTERS * max(tokens, 1):
        raise Refused("tokens", f"has {count} characters in {tokens} tokens")


def check_grades(row: dict[str, Any], got: Grade, where: str, i: int, report: Report) -> None:
    """Check that the grades stored with a reply are the right ones."""
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
    """Report how a list of ids differs from the published one."""
    known, counts = set(wanted), Counter(found)
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


# --------------------------------------------------------------------------------- cut thoughts


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


def hashed(reply: str) -> str:
    """SHA-256 of a reply."""
    return hashlib.sha256(reply.encode(errors=HALVES)).hexdigest()


def answers_digest(rows: Iterator[dict[str, Any]]) -> str:
    """SHA-256 of a table in which each reply is replaced by its own SHA-256.

    It is the same for whole and for cut replies, so that a table with cut replies can be compared
    with the ledger too.
    """
    total = hashlib.sha256()
    for row in rows:
        mark = row[ABRIDGED] if ABRIDGED in row else hashed(row["reply"])
        kept = {key: value for key, value in row.items() if key != ABRIDGED} | {"reply": mark}
        total.update((json.dumps(kept, ensure_ascii=False) + "\n").encode())
    return total.hexdigest()


def table_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that was read before."""
    return (row_of(line) for line in lines(file))


def check_replies(
    file: Path, table: Path, raw: str | None, form: AnswerForm, where: str, report: Report
) -> None:
    """Check that a side file of whole replies belongs to its table.

    Same hashes, same text but the thought; and together they are what the run wrote.

    Args:
        file: The side file.
        table: The file of predictions.
        raw: SHA-256 of what the run wrote, or None where no ledger has it.
        form: Of a reply.
        where: What findings call the side file.
        report: Receives findings.
    """
    try:
        whole: dict[str, str] = {}
        for line in lines(file):
            row = row_of(line)
            if row.keys() != {"id", "reply"} or not all(type(v) is str for v in row.values()):
                raise Refused("schema", "has a line that is not {id, reply}")
            if row["id"] in whole:
                raise Refused("duplicate-id", f"has two replies to {row['id']!r}")
            whole[row["id"]] = row["reply"]
        total = hashlib.sha256()
        for row in table_rows(table):
            if ABRIDGED in row:
                row["reply"] = _whole_reply(row, whole, form)
                del row[ABRIDGED]
            total.update((json.dumps(row, ensure_ascii=False) + "\n").encode())
        if whole:
            raise Refused("side-file", f"replies to {next(iter(whole))!r}, which nobody cut")
        if raw is not None and total.hexdigest() != raw:
            what = f"with its table it is not what the run wrote ({raw[:12]}…)"
            raise Refused("predictions-changed", what)
    except Refused as error:
        report.error(error.code, where, error.what)


def _whole_reply(row: dict[str, Any], whole: dict[str, str], form: AnswerForm) -> str:
    reply = whole.pop(row["id"], None)
    if reply is None:
        raise Refused("side-file", f"has no reply to {row['id']!r}")
    if hashed(reply) != row[ABRIDGED]:
        raise Refused("side-file", f"the reply to {row['id']!r} has another hash")
    if abridge(reply, form, LONG_THOUGHT) != row["reply"]:
        raise Refused("side-file", f"the reply to {row['id']!r} is cut differently")
    return reply
