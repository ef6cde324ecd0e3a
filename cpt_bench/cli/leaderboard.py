"""``cptbench submit``, ``verify``, ``reproduce``, ``leaderboard build`` and ``export hub``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpt_bench.cli.options import a_folder
from cpt_bench.errors import CptBenchError

if TYPE_CHECKING:
    from cpt_bench.leaderboard.verify import Verified

app = typer.Typer(help="The leaderboard's pages.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """The leaderboard's pages."""


class Division(StrEnum):
    """Closed: the suite's base model and data alone. Open: anything declared. Joint: the bound."""

    closed = "closed"
    open = "open"
    joint = "joint"


def _known_suite(spec: str | None) -> str | None:
    """Check an option at once: a typing error must not look like a fault of an entry."""
    from cpt_bench.leaderboard.gold import find_suite

    if spec is not None:
        find_suite(spec)
    return spec


Suite = Annotated[
    str | None,
    typer.Option(
        help="A suite that is not installed, or another copy of it: its folder.",
        callback=_known_suite,
    ),
]


def submit(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders of one method, one for each seed.")
    ],
    name: Annotated[str, typer.Option(help="The method, as the table shows it.")],
    author: Annotated[list[str], typer.Option(help="An author of the entry (repeatable).")],
    division: Annotated[
        Division | None,
        typer.Option(help="The division, with its rules [joint for joint training, else closed]."),
    ] = None,
    paper: Annotated[str, typer.Option(help="A link to the paper.")] = "",
    code: Annotated[str, typer.Option(help="A link to the code.")] = "",
    checkpoints: Annotated[str, typer.Option(help="A link to each stage's weights.")] = "",
    notes: Annotated[str, typer.Option(help="What the method is, in a few sentences.")] = "",
    supersedes: Annotated[str, typer.Option(help="The entry that this one corrects.")] = "",
    model: Annotated[
        str | None, typer.Option(help="The base model's name, where it is not the suite's.")
    ] = None,
    extra_data: Annotated[
        str, typer.Option(help="Training data beyond the suite's, in words (open division).")
    ] = "",
    extra_questions: Annotated[
        Path | None,
        typer.Option(help="Those questions, JSON Lines of {question, images}; hashed, not copied."),
    ] = None,
    thoughts: Annotated[
        bool, typer.Option(help="Keep long thoughts in full, in side files.")
    ] = True,
    date: Annotated[str | None, typer.Option(help="YYYY-MM-DD [today].")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the boards.", callback=a_folder)] = Path(
        "leaderboards"
    ),
    branch: Annotated[
        bool,
        typer.Option("--branch", help="Commit the entry, on a new branch of the clone it is in."),
    ] = False,
    suite: Suite = None,
) -> None:
    """Pack the seeds of one method into a leaderboard entry, and verify it."""
    from cpt_bench.leaderboard.branch import checkout_of, commit_entry
    from cpt_bench.leaderboard.pack import About, pack
    from cpt_bench.leaderboard.verify import verify as look

    if branch:
        checkout_of(out)

    about = About(
        name=name,
        authors=tuple(author),
        division=division.value if division else None,
        paper=paper,
        code=code,
        checkpoints=checkpoints,
        notes=notes,
        supersedes=supersedes,
        extra_data=extra_data,
        model=model,
        date=date,
    )
    target = pack(runs, about, out, extra_questions=extra_questions, with_thoughts=thoughts)
    done = look(target, suite)
    _print(done, claims=False)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    if not (out / "RULES.md").is_file():
        print(_outside([out]))
    print(f"{target}  ({size / 1024:,.0f} KiB)")
    if done.report.errors:
        if branch:
            print("not committed: it does not verify")
        raise typer.Exit(1)
    if branch:
        assert done.entry is not None
        made = commit_entry(out, target, done.entry)
        print(f"committed on the branch {made}. Next: git push -u origin {made}")


def _outside(boards: Sequence[Path]) -> str:
    """What to do where a folder of entries is not the repository's board."""
    shown = " ".join(map(str, boards))
    return (
        f"{', '.join(str(board.absolute()) for board in boards)} is not the repository's board (it "
        "has no RULES.md), so the published entries are not in it. To see yours among them: "
        f"cptbench leaderboard build {shown} CLONE/leaderboards, with CLONE a clone of the "
        "repository"
    )


def verify(
    entries: Annotated[
        list[Path] | None,
        typer.Argument(help="Entries, stored runs of a study, or folders that hold some."),
    ] = None,
    suite: Suite = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    claims: Annotated[
        bool, typer.Option(help="Print every claim and how far it is proven.")
    ] = False,
    changed_since: Annotated[
        str | None,
        typer.Option(
            help="Only entries that changed since this git commit; published ones must not."
        ),
    ] = None,
    among: Annotated[
        list[Path] | None,
        typer.Option(help="A board of published entries that no entry may copy (repeatable)."),
    ] = None,
) -> None:
    """Recompute every number of an entry from its predictions: offline, without torch.

    Exit status: 0 all verified; 1 something is refuted; 3 nothing is refuted, but gold is missing.
    """
    from cpt_bench.leaderboard.changed import changed_entries, find_entries
    from cpt_bench.leaderboard.verify import verify as look
    from cpt_bench.study.stored import stored_in

    stored, places = stored_in(entries or [Path("leaderboards")])
    frozen: list[str] = []
    if changed_since is not None:
        folders, frozen = changed_entries(places, changed_since)
    else:
        folders = find_entries(places)
        if not folders and not stored:
            where = ", ".join(map(str, places))
            todo = "A run folder becomes an entry by: cptbench submit RUN …"
            raise CptBenchError("no entry and no stored run here", where=where, todo=todo)
    from cpt_bench.study.verify import Seen
    from cpt_bench.study.verify import verify as look_at_run

    reports = []
    seen: Seen = {}
    # Given together, boards are compared with each other: a copy of one may lie on the other.
    boards = among or [place for place in places if (place / "RULES.md").is_file()]
    for folder in (*folders, *stored):
        if folder.is_dir():
            done = look(folder, suite, boards=boards)
        else:
            done = look_at_run(folder, suite, seen)
        reports.append(done.report)
        if not json_:
            _print(done, claims)
    if json_:
        out = {"entries": [report.as_json() for report in reports], "frozen": frozen}
        print(json.dumps(out, indent=2, ensure_ascii=False))
    else:
        for line in frozen:
            print(line)
        if not folders and not stored:
            print("no entry to verify")
    verdicts = {report.verdict for report in reports}
    if frozen or "refuted" in verdicts:
        raise typer.Exit(1)
    if "unverifiable" in verdicts:
        raise typer.Exit(3)


def _print(done: Verified, claims: bool) -> None:
    from cpt_bench.leaderboard.findings import printable

    report = done.report
    for finding in report.findings():
        print(finding.line())
    if claims:
        for claim in report.claims:
            value = "" if claim.value is None else f" {printable(claim.value)}"
            print(f"{claim.status}: {printable(claim.name)}{value} ({printable(claim.how)})")
    counts = ", ".join(f"{n} {status}" for status, n in report.counts().items() if n)
    print(f"{report.verdict}: {printable(report.entry)}" + (f" ({counts})" if counts else ""))


def reproduce(
    entry: Annotated[Path, typer.Argument(help="An entry.")],
    by: Annotated[str, typer.Option(help="The name of the person who reproduces it.")],
    seed: Annotated[int | None, typer.Option(help="Which seed [the entry's first].")] = None,
    sample: Annotated[str, typer.Option(help="Share of test samples, with --checkpoints.")] = "10%",
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the published weights, one folder for each stage (0-base, …)."
        ),
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="The trainer, if the entry's is not a built-in one.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The base model's checkpoint.")] = None,
    work: Annotated[Path | None, typer.Option(help="The rerun's run folder.")] = None,
    suite: Suite = None,
) -> None:
    """Let published weights answer again, or train a seed again, and check whether the claims hold.

    Writes a report into the entry's folder, which lifts its badge to 'reproduced'.
    """
    from cpt_bench.environment import require_training

    require_training()
    from cpt_bench.leaderboard.reproduce import reproduce as again

    share = _share(sample)
    result = again(
        entry,
        by,
        seed=seed,
        share=share,
        checkpoints=checkpoints,
        trainer=trainer,
        base=base,
        work=work,
        suite_spec=suite,
    )
    for one in result.comparisons:
        word = "within" if one.within else "OUTSIDE"
        print(
            f"{one.name:<28} entry {one.claimed:8.2f}  again {one.found:8.2f}  "
            f"{word} [{one.low:.2f}, {one.high:.2f}]"
        )
    print("reproduced" if result.reproduced else "not reproduced")
    if not result.reproduced:
        raise typer.Exit(1)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise CptBenchError(f"--sample {text!r} is no share", todo="Give 10% or 0.1")
    return share


@app.command("build")
def build(
    boards: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of boards [leaderboards]; several are shown as one."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the pages.", callback=a_folder)] = Path(
        "site"
    ),
    suite: Suite = None,
    repository: Annotated[
        str, typer.Option(help="Link files to this address instead of the folder on disk.")
    ] = "",
) -> None:
    """Verify every entry and write the leaderboard as pages that need no server."""
    from cpt_bench.leaderboard.site.collect import collect
    from cpt_bench.leaderboard.site.render import render

    places = boards or [Path("leaderboards")]
    board = collect(places, suite, tell=lambda line: print(line))
    render(board, out, repository=repository)
    looked = ", ".join(str(place.absolute()) for place in places)
    counts = f"{len(board.rows)} rows, {len(board.left_out)} left out"
    print(f"{counts}, from {looked}: {out / 'index.html'}")
    if not any((place / "RULES.md").is_file() for place in places):
        print(_outside(places))
    if board.left_out:
        raise typer.Exit(1)


def export_hub(
    entry: Annotated[Path, typer.Argument(help="An entry; it must verify.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    seed: Annotated[
        int | None,
        typer.Option(help="The seed whose weights are in the repository [numbers of all seeds]."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="OWNER/NAME of the suite's gold on the hub [cptbench/<suite>]."),
    ] = None,
    url: Annotated[str, typer.Option(help="A link to the entry on the web.")] = "",
    suite: Suite = None,
) -> None:
    """Write an entry in the format of the Hugging Face hub: cards and evaluation results, offline.

    A model card with the verified numbers, .eval_results/ in the hub's format, and the card of the
    suite's gold for a data set repository.
    """
    from cpt_bench.leaderboard.hub import export_hub as export

    for file in export(entry, out, seed=seed, dataset=dataset, url=url, suite_spec=suite):
        if "gold" not in file.parts:
            print(file)
    print(
        f"upload: hf upload OWNER/MODEL {out} --exclude 'dataset/*'; "
        f"hf upload --repo-type dataset {dataset or 'OWNER/NAME'} {out / 'dataset'}"
    )
