"""The exception for errors that a user can fix: what was wrong, where, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LOST = 75
"""Exit status if a process was killed from outside: the same command may succeed next time
(EX_TEMPFAIL of sysexits)."""

CONTINUE = "Finished steps are saved: run the same command again"
"""What to do after an interruption of any kind."""


class CptBenchError(Exception):
    """An error that a person can fix.

    The command line shows it as one line and exits with status 2; ``--debug`` shows the rest.

    Args:
        what: What was wrong, with the offending value.
        where: The file, cell or option with the problem.
        todo: What to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: object = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, str(where), todo
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}. {self.todo}" if self.todo else line

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"cptbench: {self}"]

    def __reduce__(self) -> tuple[object, ...]:  # else pickling loses the keyword arguments
        return _rebuild, (type(self), self.what, self.where, self.todo)


class Interrupted(CptBenchError):  # noqa: N818 - not an error
    """Ctrl-C; the same command resumes from there."""

    exit_code = 130


class WorkerLost(CptBenchError):  # noqa: N818 - not a mistake
    """A worker process was killed from outside; the same command may succeed next time."""

    exit_code = LOST


class TrainerFault(CptBenchError):  # noqa: N818 - the trainer's, not the harness's
    """A trainer broke the contract; the run records the fault, and committed steps remain.

    Args:
        kind: The kind of fault, in one word, for the record: ``crash``, ``timeout``, …
        what: As in :class:`CptBenchError`.
        where: As in :class:`CptBenchError`.
        todo: As in :class:`CptBenchError`.
    """

    def __init__(self, kind: str, what: str, *, where: object = "", todo: str = "") -> None:
        self.kind = kind
        self.exit_code = LOST if kind == "killed" else CptBenchError.exit_code
        super().__init__(what, where=where, todo=todo)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_fault, (self.kind, self.what, self.where, self.todo)


class PrivilegeError(TrainerFault):
    """A trainer used something that it had not declared."""

    def __init__(self, what: str, *, where: object = "", todo: str = "") -> None:
        super().__init__("privilege", what, where=where, todo=todo)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.todo)


def _rebuild_fault(kind: str, what: str, where: str, todo: str) -> TrainerFault:
    return TrainerFault(kind, what, where=where, todo=todo)


def _rebuild(kind: type[CptBenchError], what: str, where: str, todo: str) -> CptBenchError:
    return kind(what, where=where, todo=todo)


def shown(value: object, longest: int = 80) -> str:
    """A value for an error message: on one line, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def did_you_mean(name: str, known: list[str]) -> str:
    """``Did you mean 'rft'?``, or the list of known names."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    return f"Did you mean {close[0]!r}?" if close else f"There is: {', '.join(known)}"


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: each key, the problem, and the given value."""
    parts = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(k) for k in problem["loc"])
        given = (
            "" if problem["type"] in ("missing", "value_error") else f", not {problem['input']!r}"
        )
        message = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{key}: {message}{given}" if key else message)
    return "; ".join(parts)
