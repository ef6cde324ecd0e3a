"""Makes a commit with one new entry and nothing else, ready to be pushed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.entry import Entry
from cpt_bench.leaderboard.findings import printable


def checkout_of(board: Path) -> Path:
    """The git checkout that contains a board.

    Raises:
        CptBenchError: It lies in none, or it is not the repository's board.
    """
    todo = "Give --out the leaderboards/ of a clone, or leave --branch out"
    if not (board / "RULES.md").is_file():
        raise CptBenchError("is not the repository's board (no RULES.md)", where=board, todo=todo)
    done = _try(board, "rev-parse", "--show-toplevel")
    if done.returncode:
        raise CptBenchError("lies in no git checkout", where=board, todo=todo)
    return Path(done.stdout.strip())


def name_of(entry_name: str) -> str:
    """The branch of an entry's folder."""
    return f"entry/{entry_name}"


def require_unused(board: Path, branch: str) -> None:
    """Check that there is no branch of that name yet.

    Raises:
        CptBenchError: There is one.
    """
    if not _try(board, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").returncode:
        todo = f"Delete it (git branch -D {branch}), or give another --name or --date"
        raise CptBenchError(f"there is a branch {branch} already", where=board, todo=todo)


def commit_entry(board: Path, folder: Path, entry: Entry) -> str:
    """Commit an entry's folder alone, on a new branch from where the checkout stands.

    What else was changed or staged in the checkout stays as it was, uncommitted.

    Returns:
        The branch, which is then checked out.

    Raises:
        CptBenchError: git refuses; the checkout is back where it was, the entry's folder stays.
    """
    top = checkout_of(board)
    branch = name_of(folder.name)
    require_unused(board, branch)
    before = _try(top, "symbolic-ref", "--short", "--quiet", "HEAD").stdout.strip()
    place = folder.resolve().relative_to(top.resolve()).as_posix()
    subject = f"Entry: {printable(entry.name, 60)} on {entry.suite.label} {entry.suite.version}"
    seeds = ", ".join(map(str, entry.seeds))
    body = f"{entry.division} division, seeds {seeds}. Verified by: cptbench verify {place}"
    _git(top, "switch", "--quiet", "--create", branch)
    try:
        _git(top, "add", "--", place)
        _git(top, "commit", "--quiet", "--only", "-m", subject, "-m", body, "--", place)
    except CptBenchError:
        _try(top, "reset", "--quiet", "--", place)
        _try(top, "switch", "--quiet", *([before] if before else ["--detach", "HEAD"]))
        _try(top, "branch", "--quiet", "-D", branch)
        raise
    return branch


def _git(where: Path, *args: str) -> str:
    done = _try(where, *args)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        fatal = next((line for line in lines if line.startswith(("fatal:", "error:"))), None)
        what = f"git {args[0]} failed ({fatal or (lines or ['no reason given'])[-1]})"
        todo = "Mend it and commit the folder by hand, or delete it and submit again"
        if "ident" in (fatal or "") or "tell me who you are" in done.stderr:
            todo = "Say who you are: git config user.name NAME; git config user.email ADDRESS"
        raise CptBenchError(what, where=where, todo=todo)
    return done.stdout


def _try(where: Path, *args: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", "-C", str(where), *args], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise CptBenchError("git is not installed", todo="Leave --branch out") from None
