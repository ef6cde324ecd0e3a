"""``cptbench grade``: the same ruler for replies from anywhere."""

from __future__ import annotations

import json
import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpt_bench.cli.streams import read_input, utf8_output
from cpt_bench.errors import CptBenchError, explain, shown

if TYPE_CHECKING:
    from cpt_bench.suite import AnswerForm, Sample


class Form(StrEnum):
    """Where in a reply the answer stands."""

    whole = "whole"
    tags = "tags"
    boxed = "boxed"
    natural = "natural"


def grade(
    file: Annotated[str, typer.Argument(help="JSON lines; - is standard input.")] = "-",
    grader: Annotated[str | None, typer.Option(help="See: cptbench list graders.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="Take gold and grader from this suite ...")
    ] = None,
    task: Annotated[str | None, typer.Option(help="... and this task of it, by id.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="The suite's protocol: unified, official, paper.direct ...")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(help="All of the reply, <answer> tags, the last \\boxed{}, or 'answer is'."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write here [standard output].")] = None,
) -> None:
    """Grade replies: JSON lines in, the same with what they earned out, a summary on stderr.

    Each line has reply and gold (a text, or a list of which any is right; for the vqa graders
    the annotators' answers); where they matter also kind, choices, annotators, category. With
    --suite and --task a line needs only reply and id, and answers a question once. The output is
    UTF-8 in any locale.
    """
    utf8_output()
    from cpt_bench.grading import find_matcher
    from cpt_bench.grading import grade as grade_reply
    from cpt_bench.grading.summary import Graded, summarise

    if suite is None and grader is None and profile is None:
        raise CptBenchError("no ruler", todo="Give --grader NAME, or --suite NAME --task NAME")
    if profile is not None and suite is None:
        raise CptBenchError("--profile is a suite's", todo="Give --suite and --task with it")
    name, answer_form, golds = _ruler(grader, suite, task, profile, form)
    matcher = find_matcher(name, where="--grader")
    samples, graded, lines, places = [], [], [], dict[str, str]()
    for where, row in _rows(file):
        sample = _sample(row, golds, places, where)
        try:
            got = grade_reply(_reply(row, where), sample, answer_form, matcher)
        except CptBenchError as error:
            raise CptBenchError(error.what, where=error.where or where, todo=error.todo) from None
        samples.append(sample)
        graded.append(Graded(got.read, got.score, got.format_ok))
        earned = {"extracted": got.extracted, "score": got.score, "lenient": got.lenient,
                  "format_ok": got.format_ok}  # fmt: skip
        lines.append(json.dumps({**row, **earned}, ensure_ascii=False))
        if out is None:
            print(lines[-1])
    if out is not None:
        from cpt_bench.files import write_text

        write_text(out, "".join(f"{line}\n" for line in lines))
    summary = {"grader": name, "form": answer_form.kind or "tags", "profile": profile,
               **summarise(name, samples, graded, matcher)}  # fmt: skip
    print(json.dumps(summary, ensure_ascii=False), file=sys.stderr)


def _ruler(
    grader: str | None, suite: str | None, task: str | None, profile: str | None, form: Form | None
) -> tuple[str, AnswerForm, dict[str, Sample] | None]:
    """The grader's name, the form of a reply, and a suite's gold by id."""
    from cpt_bench.grading.reading import TAGS
    from cpt_bench.suite import AnswerForm

    forms = {
        Form.whole: AnswerForm(kind="whole"),
        Form.tags: TAGS,
        Form.boxed: AnswerForm(kind="boxed", open="\\boxed{", close="}", thought=TAGS.thought),
        Form.natural: AnswerForm(kind="natural", open="The answer is ", close="."),
    }
    if suite is None:
        assert grader is not None
        return grader, forms[form or Form.whole], None
    from cpt_bench.sources import load_split
    from cpt_bench.suite import open_suite
    from cpt_bench.suite.variants import compose

    opened = open_suite(compose(suite, profile, None))
    if task is None:
        known = ", ".join((*opened.sequence, *opened.general))
        raise CptBenchError("no --task", todo=f"There is: {known}")
    card = opened.card(task)
    golds = {sample.id: sample for sample in load_split(card, "test")}
    return grader or card.grader, forms[form] if form else opened.protocol.form, golds


def _rows(file: str) -> list[tuple[str, dict[str, Any]]]:
    """Each line's place and object."""
    from cpt_bench.files import parse_jsonl, read_bytes

    if file == "-":
        name, rows = "standard input", parse_jsonl(read_input(), "standard input")
    else:
        name, rows = file, parse_jsonl(read_bytes(Path(file)), file)
    if not rows:
        raise CptBenchError("no lines to grade", where=name)
    return rows


def _reply(row: dict[str, Any], where: str) -> str:
    reply = row.get("reply")
    if not isinstance(reply, str):
        raise CptBenchError(f"reply is {shown(reply)}, not text", where=where)
    return reply


def _sample(
    row: dict[str, Any], golds: dict[str, Sample] | None, places: dict[str, str], where: str
) -> Sample:
    """The question that a line answers: its own, or the suite's with its id.

    ``places`` are the lines before that answered one of the suite's; this one is added.
    """
    if golds is None:
        return _from_row(row, where)
    given = row.get("id")
    text = isinstance(given, str | int) and not isinstance(given, bool)
    sample = golds.get(str(given)) if text else None
    if sample is None:
        raise CptBenchError(f"no test sample has the id {shown(given)}", where=where)
    if sample.id in places:
        first = places[sample.id].rpartition(":")[2]
        raise CptBenchError(f"{sample.id!r} was already answered in line {first}", where=where)
    places[sample.id] = where
    return sample


def _from_row(row: dict[str, Any], where: str) -> Sample:
    from pydantic import ValidationError

    from cpt_bench.suite import Sample

    gold = row.get("gold")
    answers = _texts(gold if isinstance(gold, list) else [gold])
    if answers is None or not any(answer.strip() for answer in answers):
        raise CptBenchError(f"gold is {shown(gold)}, not a text or a list of texts", where=where)
    low = answers[0].strip().lower()
    kind = "yesno" if low in ("yes", "no") else "letter" if row.get("choices") else "word"
    try:
        return Sample(
            id=where if row.get("id") is None else str(row["id"]),
            question="" if row.get("question") is None else str(row["question"]),
            answers=answers,
            kind=kind if row.get("kind") is None else row["kind"],
            choices=_list_of("choices", row, where),
            annotators=_list_of("annotators", row, where),
            category="" if row.get("category") is None else str(row["category"]),
        )
    except ValidationError as error:
        raise CptBenchError(explain(error), where=where) from None


def _list_of(key: str, row: dict[str, Any], where: str) -> tuple[str, ...]:
    """A list of texts, which may be missing; a text is not a list of its letters."""
    given = row.get(key)
    if given is None:
        return ()
    texts = _texts(given) if isinstance(given, list) else None
    if texts is None:
        raise CptBenchError(f"{key} is {shown(given)}, not a list of texts", where=where)
    return texts


def _texts(values: list[Any]) -> tuple[str, ...] | None:
    """Texts and numbers as texts; None where one is neither."""
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, str) and not (number and abs(value) < math.inf):
            return None
    return tuple(map(str, values))
