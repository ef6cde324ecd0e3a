"""The ``cptbench`` command: every sub-command is a thin call into the package.

Nothing heavy is imported here; ``cptbench --help`` answers at once.
"""

from __future__ import annotations

import codecs
import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cpt_bench.cli import (
    compare,
    data,
    doctor,
    evaluate,
    grade,
    leaderboard,
    look,
    plan,
    report,
    run,
    score,
    study,
    suite,
    sweep,
    trainer,
)
from cpt_bench.errors import CONTINUE, CptBenchError, Interrupted


class Commands(TyperGroup):
    """All commands; what interrupts one has a line and an exit code of its own.

    Click shows Ctrl-C, and also any file or pipe that ends too early, as 'Aborted!' and exits
    with 1.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        except EOFError as error:
            what = f"a file or a pipe ended too early ({str(error) or 'end of file'})"
            raise CptBenchError(what, todo="--debug shows where") from error


app = typer.Typer(
    name="cptbench",
    cls=Commands,
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
app.add_typer(suite.app, name="suite")
evaluate.export.command("hub")(leaderboard.export_hub)
app.add_typer(evaluate.export, name="export")
app.add_typer(data.app, name="data")


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}
"""The disk is full, or must not be written to."""

MISPLACED = {
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.EBUSY),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
"""A file was given for a folder, or a folder for a file, or what is not there or cannot be."""

ASCII = str.maketrans({
    **dict.fromkeys("–−‐‑", "-"), **dict.fromkeys("‘’", "'"), **dict.fromkeys("“”", '"'),
    "—": "--", "…": "...", "·": ".", "×": "x", "→": "->", "≥": ">=", "≤": "<=",
})  # fmt: skip
"""What stands for typographic characters on a terminal that has none."""


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
    _degrade_characters()
    try:
        app()
    except CptBenchError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        _complain(_line_of(error))
        sys.exit(CptBenchError.exit_code)
    except UnicodeEncodeError as error:  # of a file's name: streams replace characters
        if debug:
            raise
        lacking = ascii(error.object[error.start : error.end])
        _complain(f"this locale's encoding, {error.encoding}, lacks {lacking}. Set LC_ALL=C.UTF-8")
        sys.exit(CptBenchError.exit_code)


def _line_of(error: OSError) -> str:
    """What the system refused, of which file, and what to do about it."""
    # shutil.Error has no number: it holds (source, target, message) of each file that failed.
    parts = error.args[0] if error.args and isinstance(error.args[0], list) else []
    what = error.strerror or (str(parts[0][-1]) if parts else str(error)) or type(error).__name__
    name = error.filename if error.filename is not None else parts[0][1] if parts else ""
    place = f" ({_short(str(name))})" if name != "" else ""
    todo = ""
    if error.errno in FULL or any(f"[Errno {n}]" in what for n in (errno.ENOSPC, errno.EDQUOT)):
        todo = f"Make room. {CONTINUE}"
    elif error.errno == errno.ENAMETOOLONG:
        todo = "Give a shorter name"
    return " ".join(f"{what}{place}{f'. {todo}' if todo else ''}".split())


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:100]}…{name[-60:]}, {len(name)} characters"


def _complain(line: str) -> None:
    print(f"cptbench: {line}", file=sys.stderr)


def _degrade_characters() -> None:
    """Have characters that the terminal's encoding lacks replaced, in place of an error."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        plain = error.object[error.start : error.end].translate(ASCII)
        return "".join(c if c.isascii() else "?" for c in plain), error.end

    codecs.register_error("cptbench.plain", replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a test puts in its place
            stream.reconfigure(errors="cptbench.plain")
