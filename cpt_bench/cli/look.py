"""``cptbench list`` and ``cptbench show``: what there is."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cpt_bench.suite import Protocol, Suite, TaskCard
    from cpt_bench.suite.origins import Draw


class Kind(StrEnum):
    """What can be listed."""

    suites = "suites"
    tasks = "tasks"
    trainers = "trainers"
    graders = "graders"
    engines = "engines"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    check: Annotated[
        bool, typer.Option(help="Import each one, and show why where that fails (takes seconds).")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List suites, tasks, trainers, graders or engines, and where each comes from."""
    if kind is Kind.tasks:
        rows = _tasks()
    elif kind is Kind.graders:
        rows = _graders()
    else:
        from cpt_bench.plugins import listing

        rows = [(row.name, row.summary, row.origin) for row in listing(kind.value)]
        if check:
            rows = [(name, _problem(kind.value, name) or what, where) for name, what, where in rows]
    if json_:
        import json

        print(json.dumps([dict(zip(("name", "summary", "origin"), r, strict=True)) for r in rows]))
        return
    width = max((len(row[0]) for row in rows), default=0)
    for name, summary, origin in rows:
        print(f"{name:<{width}}  {summary}  [{origin}]")


def _problem(kind: str, name: str) -> str:
    """Why a plug-in cannot be used; empty when it can."""
    from cpt_bench.errors import CptBenchError
    from cpt_bench.plugins import resolve

    try:
        resolve(kind, name)
    except CptBenchError as error:
        return f"BROKEN: {error}"
    return ""


def _tasks() -> list[tuple[str, str, str]]:
    from cpt_bench.errors import CptBenchError
    from cpt_bench.plugins import listing
    from cpt_bench.suite import open_suite

    rows = []
    for found in listing("suites"):
        try:
            suite = open_suite(found.name)
        except CptBenchError as error:
            rows.append((found.name, f"BROKEN: {error}", found.origin))
            continue
        for name in (*suite.sequence, *suite.general):
            card = suite.card(name)
            what = "task" if name in suite.sequence else "general"
            role = f" ({card.role}'s role)" if card.role else ""
            rows.append((f"{found.name}/{name}", f"{card.title}{role}", what))
    return rows


def _graders() -> list[tuple[str, str, str]]:
    from cpt_bench.grading import MATCHERS
    from cpt_bench.plugins import listing

    return [
        (name, (matcher.__doc__ or "").strip().splitlines()[0], "built in")
        for name, matcher in MATCHERS.items()
    ] + [(row.name, row.summary, row.origin) for row in listing("graders")]


def _form(protocol: Protocol) -> str:
    if protocol.form.kind == "whole":
        return "all of the reply"
    if protocol.form.kind == "boxed":
        return "the last \\boxed{...}; the form is a thought before it, and judged apart"
    if protocol.form.kind == "natural":
        asked = protocol.target("…")
        return f"after the last 'answer is', else the last words; {asked!r} is the form"
    if not protocol.form.thought[0]:
        return f"{protocol.target('…')}, and nothing around it"
    thought = "…".join(protocol.form.thought)
    return f"{protocol.target('…')}, after an optional {thought}"


def _title(card: TaskCard) -> str:
    return f"{card.title} ({card.role})" if card.role else card.title


def _rule(draw: Draw | None) -> str:
    return f"; drawn with seed {draw.seed} from rank {draw.skip}" if draw else ""


def _named(name: str) -> tuple[Suite, str]:
    """The suite that is named, and the task; empty where it is the whole suite.

    Raises:
        CptBenchError: There is no such suite, or it cannot be read.
    """
    from pathlib import Path

    from cpt_bench.errors import CptBenchError, did_you_mean
    from cpt_bench.plugins import SUITE, listing
    from cpt_bench.suite import open_suite
    from cpt_bench.suite.variants import split_spec

    known = [row.name for row in listing("suites")]

    def is_suite(spec: str) -> bool:
        whole = split_spec(spec)[0]
        return whole in known or (Path(whole) / SUITE).is_file() or ":" in whole

    name = name.rstrip("/") or name
    above, _, task = name.rpartition("/")
    if is_suite(name):
        return open_suite(name), ""
    if is_suite(above):
        return open_suite(above), task
    if "/" in name and not Path(split_spec(name)[0]).is_dir():
        raise CptBenchError(
            f"{name!r} is neither a suite nor a task of one: there is no suite {above!r}",
            todo=did_you_mean(name, known),
        )
    return open_suite(name), ""


def show(
    name: Annotated[str, typer.Argument(help="A suite, or a task: SUITE or SUITE/TASK.")],
    samples: Annotated[int, typer.Option(min=0, help="Also print this many test questions.")] = 0,
) -> None:
    """Show a suite's tasks and protocol, or one task's card."""
    from cpt_bench.grading import find_matcher

    suite, task = _named(name)
    if not task:
        print(f"{suite.name} {suite.version}: {suite.title}\n\n{suite.description}\n")
        print(f"base model  {suite.base_model.id}")
        for t, member in enumerate(suite.sequence, 1):
            card = suite.card(member)
            sizes = ", ".join(f"{s.n} {split}" for split, s in card.splits.items())
            print(f"task {t}      {member:<10} {_title(card)}; {sizes}")
        for member in suite.general:
            card = suite.card(member)
            print(f"general     {member:<10} {_title(card)}; {card.splits['test'].n} test")
        protocol = suite.protocol
        heat = protocol.decoding.temperature
        how = f"sampled at temperature {heat:g}" if heat else "greedy"
        print(f"protocol    {protocol.name}: style {protocol.style}, {how}, ", end="")
        print(f"at most {protocol.decoding.max_new_tokens} new tokens")
        for style, template in protocol.prompts.items():
            print(f"prompt      {style:<10} {template!r}")
        print(f"answer      {_form(protocol)}")
        weights = protocol.reward
        print(f"reward      {weights.accuracy} x accuracy + {weights.format} x form")
        print(f"fingerprint {suite.fingerprint()}")
        return
    card = suite.card(task)
    role = f", in the role of {card.role}" if card.role and card.role != card.title else ""
    print(f"{suite.name}/{card.name} v{card.version}: {card.title}{role}\n")
    print(f"{card.description}\n")
    for split, published in card.splits.items():
        fetched = card.source.kind == "hub"
        absent = "recorded when it is prepared" if fetched else "not yet: suite check --pin"
        known = published.sha256 or absent
        print(f"{split:<8} {published.n} samples, sha256 {known}{_rule(published.draw)}")
    print(f"grader   {card.grader}; answers: {', '.join(card.answer_kinds)}")
    print(f"licence  {card.licence}")
    for note in card.notes:
        print(f"note     {note}")
    find_matcher(card.located().grader, where=f"task {card.name}")
    if samples:
        from cpt_bench.sources import load_split

        pinned = card.splits["test"].sha256 is not None
        for sample in load_split(card, "test", check=pinned)[:samples]:
            print(f"\n{sample.id}\n  {sample.question}\n  -> {sample.answers[0]}")
