"""``cptbench submit`` in and outside a clone, with a ready commit, and the board it is seen on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.entries.make import make_entry

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(suite, entry); its runs are beside the suite."""
    return make_entry(tmp_path_factory.mktemp("good"))


def git(where: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(where), *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout with a board, one commit on main, and other work that is under way."""
    place = tmp_path / "clone"
    (place / "leaderboards").mkdir(parents=True)
    (place / "leaderboards/RULES.md").write_text("rules\n")
    (place / "notes.txt").write_text("one\n")
    git(tmp_path, "init", "-q", "-b", "main", str(place))
    git(place, "config", "user.name", "T")
    git(place, "config", "user.email", "t@example.org")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "one")
    (place / "notes.txt").write_text("under way\n")
    (place / "staged.txt").write_text("staged\n")
    git(place, "add", "staged.txt")
    return place


def submit(cli: Cli, good: tuple[Path, Path], *more: object) -> subprocess.CompletedProcess[str]:
    runs = [good[0].parent / f"run{seed}" for seed in range(3)]
    fixed = ["--author", "A. Uthor", "--notes", "A test.", "--date", "2026-11-24"]
    name = [] if "--name" in more else ["--name", "My method"]
    return cli("submit", *runs, *name, *fixed, "--suite", good[0], *more)


# ------------------------------------------------------------------------------------ --branch


def test_a_ready_commit(good: tuple[Path, Path], clone: Path, cli: Cli) -> None:
    """One new folder on a branch of its own; what else is under way stays as it is."""
    done = submit(cli, good, "--out", clone / "leaderboards", "--branch")
    assert done.returncode == 0, done.stdout + done.stderr
    branch = "entry/2026-11-24__my-method__small-base"
    assert done.stdout.splitlines()[-1].endswith(f"Next: git push -u origin {branch}")
    assert git(clone, "rev-parse", "--abbrev-ref", "HEAD") == branch
    assert git(clone, "rev-list", "--count", "main..HEAD") == "1"
    files = git(clone, "diff", "--name-only", "main", "HEAD").splitlines()
    place = "leaderboards/small/1.0/closed/2026-11-24__my-method__small-base/"
    assert len(files) > 60 and all(file.startswith(place) for file in files)
    assert git(clone, "log", "-1", "--format=%s") == "Entry: My method on small 1.0"
    assert git(clone, "status", "--porcelain").splitlines() == [
        "A  staged.txt",
        " M notes.txt",
    ] or (set(git(clone, "status", "--porcelain").splitlines()) == {"A  staged.txt", "M notes.txt"})
    from cpt_bench.leaderboard.changed import changed_entries

    fresh, frozen = changed_entries([clone / "leaderboards"], "main")
    assert [f.name for f in fresh] == ["2026-11-24__my-method__small-base"] and frozen == []


def test_no_commit_without_a_clone(good: tuple[Path, Path], tmp_path: Path, cli: Cli) -> None:
    """Said before anything is packed."""
    for make, words in (
        (lambda: None, "is not the repository's board (no RULES.md)"),
        (lambda: (tmp_path / "b/RULES.md").write_text("rules\n"), "lies in no git checkout"),
    ):
        (tmp_path / "b").mkdir(exist_ok=True)
        make()
        done = submit(cli, good, "--out", "b", "--branch")
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
        assert not (tmp_path / "b/small").exists()


def test_a_branch_that_is_there(good: tuple[Path, Path], clone: Path, cli: Cli) -> None:
    git(clone, "branch", "entry/2026-11-24__my-method__small-base")
    done = submit(cli, good, "--out", clone / "leaderboards", "--branch")
    assert done.returncode == 2 and "there is a branch entry/2026-11-24__my-method" in done.stderr
    assert git(clone, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_git_refuses(good: tuple[Path, Path], clone: Path, cli: Cli) -> None:
    """A hook says no: the checkout is where it was, the entry stays to be committed by hand."""
    hook = clone / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\necho 'error: not today' >&2\nexit 1\n")
    hook.chmod(0o755)
    done = submit(cli, good, "--out", clone / "leaderboards", "--branch")
    assert done.returncode == 2 and "git commit failed (error: not today)" in done.stderr
    assert git(clone, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert git(clone, "branch", "--list", "entry/*") == ""
    assert "A  staged.txt" in git(clone, "status", "--porcelain")
    assert (clone / "leaderboards/small/1.0/closed/2026-11-24__my-method__small-base").is_dir()


def test_what_does_not_verify_is_not_committed(
    good: tuple[Path, Path], clone: Path, cli: Cli
) -> None:
    done = submit(cli, good, "--out", clone / "leaderboards", "--branch", "--name", "\u0405FT")
    assert done.returncode == 1 and done.stdout.endswith("not committed: it does not verify\n")
    assert git(clone, "rev-parse", "--abbrev-ref", "HEAD") == "main"


# --------------------------------------------------------------- outside the clone (issue 18, 43)


def test_a_board_of_ones_own_says_where_it_looked(
    good: tuple[Path, Path], clone: Path, tmp_path: Path, cli: Cli
) -> None:
    """And how to see the entry among the others; which is then done."""
    done = submit(cli, good)
    hint = f"{tmp_path / 'leaderboards'} is not the repository's board (it has no RULES.md)"
    assert done.returncode == 0 and hint in done.stdout
    build = cli("leaderboard", "build", "--suite", good[0])
    assert build.returncode == 0
    assert f"1 rows, 0 left out, from {tmp_path / 'leaderboards'}: " in build.stdout
    assert hint in build.stdout
    assert "cptbench leaderboard build leaderboards CLONE/leaderboards" in build.stdout
    shutil.rmtree(tmp_path / "leaderboards")
    submit(cli, good, "--name", "Another")
    board = clone / "leaderboards"
    published = board / good[1].relative_to(good[1].parents[3])
    shutil.copytree(good[1], published)
    both = cli("leaderboard", "build", "leaderboards", board, "--suite", good[0])
    assert "RULES.md" not in both.stdout
    # It is a copy of the published one, which one's own board alone did not show.
    assert both.returncode == 1 and "1 rows, 1 left out" in both.stdout


def test_a_place_on_two_boards_is_shown_once(
    good: tuple[Path, Path], tmp_path: Path, cli: Cli
) -> None:
    boards = [tmp_path / name / "leaderboards" for name in ("one", "two")]
    for board in boards:
        shutil.copytree(good[1], board / good[1].relative_to(good[1].parents[3]))
    done = cli("leaderboard", "build", *boards, "--suite", good[0])
    assert done.returncode == 0 and "1 rows, 0 left out" in done.stdout


def test_in_a_clone_nothing_is_added(good: tuple[Path, Path], clone: Path, cli: Cli) -> None:
    done = submit(cli, good, "--out", clone / "leaderboards")
    assert done.returncode == 0 and "RULES.md" not in done.stdout
    build = cli("leaderboard", "build", clone / "leaderboards", "--suite", good[0])
    assert "1 rows" in build.stdout and "RULES.md" not in build.stdout


def test_nothing_to_show(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "leaderboards").mkdir()
    done = cli("leaderboard", "build")
    assert done.returncode == 2 and f"{tmp_path / 'leaderboards'}: no entry here" in done.stderr
    assert not (tmp_path / "site").exists()


def test_a_part_of_a_board(good: tuple[Path, Path], tmp_path: Path, cli: Cli) -> None:
    """A folder below the board shows its entries under the places they have."""
    done = cli("leaderboard", "build", good[1].parents[2], "--suite", good[0])
    assert done.returncode == 0 and "1 rows, 0 left out" in done.stdout
    loose = Path(shutil.copytree(good[1], tmp_path / "loose" / good[1].name))
    assert loose.is_dir()
    done = cli("leaderboard", "build", "loose", "--suite", good[0], "--out", "other")
    assert done.returncode == 1 and "0 rows, 1 left out" in done.stdout
    assert "belongs in small/1.0/closed/2026" in (tmp_path / "other/index.html").read_text()
