"""The ``cptbench`` command: every sub-command is a thin call into the package.

Nothing heavy is imported here; ``cptbench --help`` answers at once.
"""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from cpt_bench.cli import (
    compare,
    data,
    doctor,
    evaluate,
    grade,
    leaderboard,
    look,
    nano,
    plan,
    report,
    run,
    score,
    study,
    sweep,
    trainer,
)
from cpt_bench.errors import CptBenchError

app = typer.Typer(
    name="cptbench",
    help="What does a post-training method learn, and what does it forget?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for the help page alone costs 0.1 s
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("eval")(evaluate.evaluate)
app.command("list")(look.list_)
app.command("show")(look.show)
app.command("score")(score.score)
app.command("metrics")(score.metrics)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("grade")(grade.grade)
app.command("submit")(leaderboard.submit)
app.command("verify")(leaderboard.verify)
app.command("reproduce")(leaderboard.reproduce)
app.add_typer(leaderboard.app, name="leaderboard")
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.add_typer(study.app, name="study")
app.add_typer(trainer.app, name="trainer")
app.add_typer(evaluate.export, name="export")
app.add_typer(nano.app, name="nano")
app.add_typer(data.app, name="data")


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}
MISPLACED = {
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.EBUSY),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
"""A file was given for a folder, or a folder for a file, or what is not there or cannot be."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("cptbench"))
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option(help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What does a post-training method learn, and what does it forget?"""


def entry() -> None:
    """Run the command line; errors a person can mend become one line and an exit code."""
    debug = "--debug" in sys.argv
    try:
        app()
    except CptBenchError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        if debug or error.errno not in FULL | MISPLACED:
            raise
        advice = "What was committed is kept: make room and run the same command again"
        _complain(f"{error.strerror}{place}" + (f". {advice}" if error.errno in FULL else ""))
        sys.exit(CptBenchError.exit_code)


def _complain(line: str) -> None:
    print(f"cptbench: {line}", file=sys.stderr)
