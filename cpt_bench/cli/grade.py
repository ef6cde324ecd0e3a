"""``cptbench grade``: the same ruler for replies from anywhere."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpt_bench.errors import CptBenchError, explain

if TYPE_CHECKING:
    from cpt_bench.suite import AnswerForm, Sample

TAGS = {"open": "<answer>", "close": "</answer>", "thought": ("<think>", "</think>")}


class Form(StrEnum):
    """Where in a reply the answer stands."""

    whole = "whole"
    tags = "tags"
    boxed = "boxed"


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
        Form | None, typer.Option(help="All of the reply, <answer> tags, or the last \\boxed{}.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write here [standard output].")] = None,
) -> None:
    """Grade replies: JSON lines in, the same with what they earned out, a summary on stderr.

    Each line has reply and gold (a text, or a list of which any is right; for the vqa graders
    the annotators' answers); where they matter also kind, choices, annotators, category. With
    --suite and --task a line needs only reply and id.
    """
    from cpt_bench.grading import find_matcher
    from cpt_bench.grading import grade as grade_reply
    from cpt_bench.grading.summary import Graded, summarise

    if suite is None and grader is None and profile is None:
        raise CptBenchError("no ruler", todo="Give --grader NAME, or --suite NAME --task NAME")
    if profile is not None and suite is None:
        raise CptBenchError("--profile is a suite's", todo="Give --suite and --task with it")
    name, answer_form, golds = _ruler(grader, suite, task, profile, form)
    matcher = find_matcher(name, where="--grader")
    samples, graded, lines = [], [], []
    for where, row in _rows(file):
        sample = _from_suite(row, golds, where) if golds is not None else _from_row(row, where)
        got = grade_reply(_reply(row, where), sample, answer_form, matcher)
        samples.append(sample)
        graded.append(Graded(got.extracted, got.score, got.format_ok))
        earned = {"extracted": got.extracted, "score": got.score, "lenient": got.lenient,
                  "format_ok": got.format_ok}  # fmt: skip
        lines.append(json.dumps({**row, **earned}, ensure_ascii=False))
        if out is None:
            print(lines[-1])
    if out is not None:
        from cpt_bench.files import write_text

        write_text(out, "".join(f"{line}\n" for line in lines))
    summary = {"grader": name, "form": answer_form.kind or "tags", "profile": profile,
               **summarise(name, samples, graded)}  # fmt: skip
    print(json.dumps(summary, ensure_ascii=False), file=sys.stderr)


def _ruler(
    grader: str | None, suite: str | None, task: str | None, profile: str | None, form: Form | None
) -> tuple[str, AnswerForm, dict[str, Sample] | None]:
    """The grader's name, the form of a reply, and a suite's gold by id."""
    from cpt_bench.suite import AnswerForm

    forms = {
        Form.whole: AnswerForm(kind="whole"),
        Form.tags: AnswerForm.model_validate(TAGS),
        Form.boxed: AnswerForm(kind="boxed", open="\\boxed{", close="}", thought=TAGS["thought"]),
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
    if file == "-":
        text, name = sys.stdin.read(), "standard input"
    else:
        try:
            text, name = Path(file).read_text(encoding="utf-8"), file
        except FileNotFoundError:
            raise CptBenchError("no such file", where=file) from None
        except UnicodeDecodeError as error:
            raise CptBenchError(f"not UTF-8 ({error})", where=file) from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CptBenchError(f"not valid JSON ({error})", where=where) from None
        if not isinstance(row, dict):
            raise CptBenchError("not a JSON object", where=where)
        rows.append((where, row))
    if not rows:
        raise CptBenchError("no lines to grade", where=name)
    return rows


def _reply(row: dict[str, Any], where: str) -> str:
    reply = row.get("reply")
    if not isinstance(reply, str):
        raise CptBenchError(f"reply is {reply!r}, not text", where=where)
    return reply


def _from_suite(row: dict[str, Any], golds: dict[str, Sample], where: str) -> Sample:
    sample = golds.get(str(row.get("id")))
    if sample is None:
        raise CptBenchError(f"no test sample has the id {row.get('id')!r}", where=where)
    return sample


def _from_row(row: dict[str, Any], where: str) -> Sample:
    from pydantic import ValidationError

    from cpt_bench.suite import Sample

    gold = row.get("gold")
    answers = gold if isinstance(gold, list) else [gold]
    if not answers or not all(isinstance(a, str | int | float) for a in answers):
        raise CptBenchError(f"gold is {gold!r}, not a text or a list of texts", where=where)
    first = str(answers[0])
    low = first.strip().lower()
    kind = "yesno" if low in ("yes", "no") else "letter" if row.get("choices") else "word"
    try:
        return Sample(
            id=str(row.get("id", where)),
            question=str(row.get("question", "")),
            answers=tuple(map(str, answers)),
            kind=row.get("kind", kind),
            choices=tuple(row.get("choices") or ()),
            annotators=tuple(row.get("annotators") or ()),
            category=row.get("category", ""),
        )
    except ValidationError as error:
        raise CptBenchError(explain(error), where=where) from None
    except TypeError as error:
        raise CptBenchError(f"choices or annotators is no list ({error})", where=where) from None
