"""An entry among its neighbours: copies, corrections, names that look alike."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpt_bench.leaderboard.findings import Level
from cpt_bench.leaderboard.verify import Verified, verify
from tests.support.entries.forge import (
    Rows,
    change_answers,
    copy_entry,
    edit_entry,
    fresh_weights,
    one_a_file,
    other_thoughts,
    relabel,
    write_reproduction,
)
from tests.support.entries.make import add_entry
from tests.support.places import ROOT

Change = Callable[[int, str, Rows], Any]


def errors(done: Verified, code: str = "") -> list[str]:
    found = [f.line() for f in done.report.errors if not code or f.code == code]
    assert all("\n" not in line for line in found)
    return found


def warnings(done: Verified) -> list[str]:
    return [f.line() for f in done.report.findings() if f.level is Level.warning]


OTHER = {"authors": ["B. Other"], "notes": "Mine."}


# --------------------------------------------------------------------------------------- copies


def test_five_copies_are_found_and_the_oldest_stands(good: tuple[Path, Path], entry: Path) -> None:
    """Issue 18, row 33: under other names and dates, each with a finding, the original too."""
    copies = [
        copy_entry(entry, name=f"Method {i}", date=f"2026-11-{22 + i}", **OTHER)
        for i in range(1, 6)
    ]
    done = verify(entry, str(good[0]))
    assert done.report.verdict == "verified"
    assert len([line for line in warnings(done) if ": copied: " in line]) == 5
    for i, copy in enumerate(copies, 1):
        found = errors(verify(copy, str(good[0])))
        assert len(found) == i, found  # of the original, and of every copy before it
        assert all(
            line.startswith("error: copy: seed-0: is seed-0 of small/1.0/closed/2026")
            for line in found
        )
        assert any(
            f"{entry.name}, which is older: 1-science has the same weights" in line
            for line in found
        )


def renamed_weights(entry: Path, shift: int = 0) -> None:
    for seed in range(3):
        relabel(entry / f"seed-{seed}", {t: fresh_weights(seed + shift, t) for t in (1, 2, 3)})


@pytest.mark.parametrize("change", [None, one_a_file, other_thoughts])
def test_a_copy_with_other_weights_and_some_other_words(
    change: Change | None, good: tuple[Path, Path], entry: Path
) -> None:
    """Digests made up, one reply a file changed, or every thought rewritten."""
    copy = copy_entry(entry, name="Novel", date="2026-11-23", **OTHER)
    renamed_weights(copy)
    for seed in range(3):
        if change is not None:
            change_answers(copy / f"seed-{seed}", good[0], change)
    if change is other_thoughts:
        edit_entry(copy, response_style="thinking")
    found = errors(verify(copy, str(good[0])))
    assert len(found) == 1 and "error: copy: seed-0" in found[0], found
    assert "contested answers of all stages differ" in found[0]
    assert [line for line in warnings(verify(entry, str(good[0]))) if "2026-11-23__novel" in line]


def test_one_seed_of_somebody_else(good: tuple[Path, Path], entry: Path, tmp_path: Path) -> None:
    """An entry of one's own with one seed of a neighbour's, under another number."""
    mine = add_entry(tmp_path / "more", good[0], entry.parents[3], 3, name="Mine", **_later())
    for seed in range(3):

        def own(t: int, name: str, now: Rows, seed: int = seed) -> None:
            for i, row in enumerate(now if t else []):
                dress = "<think> so</think>" if i % 3 == 0 else ""
                row["reply"] = f"{dress}<answer>own {seed} {t} {i % 7}</answer>"

        change_answers(mine / f"seed-{seed}", good[0], own)
    renamed_weights(mine, shift=50)
    assert errors(verify(mine, str(good[0]))) == []
    shutil.rmtree(mine / "seed-2/predictions")
    shutil.copytree(entry / "seed-0/predictions", mine / "seed-2/predictions")
    change_answers(mine / "seed-2", good[0], lambda *_: None)
    found = errors(verify(mine, str(good[0])))
    assert len(found) == 1 and "error: copy: seed-2: is seed-0 of" in found[0], found


def _later() -> dict[str, Any]:
    return {"authors": ("B. Other",), "date": "2026-11-24", "notes": "Mine."}


def test_a_copy_in_the_open_division(good: tuple[Path, Path], entry: Path) -> None:
    copy = copy_entry(entry, name="Open", date="2026-11-23", division="open", **OTHER)
    assert copy.parent.name == "open"
    (found,) = errors(verify(copy, str(good[0])))
    assert "is seed-0 of small/1.0/closed/2026-11-22__sft-small" in found


def test_two_of_one_day_are_for_a_person_to_decide(good: tuple[Path, Path], entry: Path) -> None:
    copy = copy_entry(entry, name="Twin", **OTHER)
    for one in (entry, copy):
        (found,) = errors(verify(one, str(good[0])))
        assert "and neither is older" in found


def git(where: Path, *args: str, when: str = "2026-11-25T00:00:00") -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    env = {**os.environ, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    subprocess.run(
        ["git", "-C", str(where), *name, *args], check=True, capture_output=True, env=env
    )


def test_what_was_published_first_is_older_whatever_date_it_gives(
    good: tuple[Path, Path], entry: Path, tmp_path: Path
) -> None:
    edit_entry(entry, date="2026-11-25")
    entry = entry.rename(entry.with_name(entry.name.replace("2026-11-22", "2026-11-25")))
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    copy = copy_entry(entry, name="Backdated", date="2026-11-22", **OTHER)
    assert errors(verify(entry, str(good[0]))) == []
    assert len(errors(verify(copy, str(good[0])), "copy")) == 1
    from cpt_bench.leaderboard.board import _added

    _added.cache_clear()
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "two", when="2020-01-01T00:00:00")  # nor whatever time
    assert errors(verify(entry, str(good[0]))) == []
    assert len(errors(verify(copy, str(good[0])), "copy")) == 1


def test_a_correction_is_no_copy(good: tuple[Path, Path], entry: Path) -> None:
    """Packed again from the same runs; and corrected once more."""
    second = copy_entry(entry, date="2026-11-23", notes="Better.", supersedes=entry.name)
    third = copy_entry(second, date="2026-11-24", notes="Best.", supersedes=second.name)
    for one in (entry, second, third):
        done = verify(one, str(good[0]))
        assert errors(done) == [] and warnings(done) == []


def test_methods_that_share_seeds_and_data_are_no_copies(
    good: tuple[Path, Path], entry: Path, tmp_path: Path
) -> None:
    """The same base row, seeds and questions; a joint entry beside them."""
    joint = add_entry(tmp_path / "more", good[0], entry.parents[3], joint=True, name="Joint")
    for one in (entry, joint):
        done = verify(one, str(good[0]))
        assert errors(done) == [] and warnings(done) == []


def test_a_copy_lies_on_another_board(good: tuple[Path, Path], entry: Path, tmp_path: Path) -> None:
    """One's own folder of entries beside a clone's."""
    own = tmp_path / "own/small/1.0/closed/x"
    own.parent.mkdir(parents=True)
    copy = copy_entry(entry, name="Novel", date="2026-11-23", **OTHER)
    mine = copy.rename(own.with_name(copy.name))
    assert errors(verify(mine, str(good[0]))) == []
    (found,) = errors(verify(mine, str(good[0]), boards=[entry.parents[3]]))
    assert found.startswith("error: copy: seed-0: is seed-0 of small/1.0/closed/2026-11-22")


# ---------------------------------------------------------------------------------- corrections


def correction(entry: Path, date: str, **changes: Any) -> Path:
    return copy_entry(entry, date=date, **changes)


def test_entries_that_supersede_each_other_in_a_ring(good: tuple[Path, Path], entry: Path) -> None:
    second = correction(entry, "2026-11-23", supersedes=entry.name)
    edit_entry(entry, supersedes=second.name)
    for one, other in ((entry, second), (second, entry)):
        found = errors(verify(one, str(good[0])), "supersedes")
        assert any(
            f"supersedes {other.name}, which supersedes this one in turn" in f for f in found
        )
    third = correction(second, "2026-11-24", supersedes=second.name)
    edit_entry(entry, supersedes=third.name)
    for one in (entry, second, third):
        found = errors(verify(one, str(good[0])), "supersedes")
        assert any("which supersedes this one in turn" in f for f in found), found


def test_an_entry_supersedes_nothing_younger(good: tuple[Path, Path], entry: Path) -> None:
    young = correction(entry, "2026-11-24")
    edit_entry(entry, supersedes=young.name)
    assert f"error: supersedes: entry.yaml: supersedes {young.name}, which is younger" in errors(
        verify(entry, str(good[0]))
    )


def test_one_entry_is_corrected_once(good: tuple[Path, Path], entry: Path) -> None:
    """Who corrects a correction supersedes that one, so that one entry stands."""
    second = correction(entry, "2026-11-23", supersedes=entry.name)
    third = correction(entry, "2026-11-24", supersedes=entry.name)
    assert errors(verify(second, str(good[0])), "supersedes") == []
    (found,) = errors(verify(third, str(good[0])), "supersedes")
    assert found.endswith(f"which {second.name} supersedes already")


# ----------------------------------------------------------------------------- what looks alike


@pytest.mark.parametrize(
    ("name", "authors", "caught"),
    [
        ("SFT, smaII", ["B. Other"], True),  # two capital I
        ("5FT, small", ["B. Other"], False),
        ("SFT, sma11", ["B. Other"], True),
        ("\u0405\u0416", ["B. Other"], False),
        ("sft,  small", ["B. Other"], False),  # the same name, not one that looks like it
        ("Mine", ["A. Uth0r"], True),
        ("Mine", ["B. Other"], False),
        ("SFT, sma11", ["A. Uthor"], False),  # one's own
    ],
)
def test_a_name_that_looks_like_a_neighbours(
    name: str, authors: list[str], caught: bool, good: tuple[Path, Path], entry: Path
) -> None:
    copy = copy_entry(entry, name=name, date="2026-11-23", authors=authors, notes="Mine.")
    found = errors(verify(copy, str(good[0])), "look-alike")
    near = [line for line in found if " looks like " in line and "of 2026-11-22__sft" in line]
    assert bool(near) == caught, found
    assert errors(verify(entry, str(good[0])), "look-alike") == []


@pytest.mark.parametrize(
    "name",
    [
        "αGRPO",
        "μP",
        "µP",
        "β-VAE + SFT",
        "Yıldız",
        "李明",
        "Иван Иванов",
        "Ελένη",
        "O'Brien",
        "naïve",
    ],
)
def test_honest_names_are_no_look_alikes(name: str, good: tuple[Path, Path], entry: Path) -> None:
    """Greek letters of formulas, Turkish, Chinese, Russian and Greek names."""
    edit_entry(entry, authors=[name])
    assert errors(verify(entry, str(good[0])), "look-alike") == []
    from cpt_bench.leaderboard.names import faults

    assert [*faults(name)] == []


def test_who_reproduces_is_not_an_author_who_looks_like_another(
    good: tuple[Path, Path], entry: Path
) -> None:
    write_reproduction(entry, "A. Uth0r", lambda new: None)
    done = verify(entry, str(good[0]))
    assert errors(done) == []
    assert done.reproductions[0].reproduced and not done.reproductions[0].independent


def test_a_reproduction_is_dated_between_its_entry_and_today(
    good: tuple[Path, Path], entry: Path
) -> None:
    write_reproduction(entry, "B. Other", lambda new: None)
    folder = entry / "reproductions/2026-11-25__b.-other"
    for date in ("2099-01-01", "2026-11-21"):
        file = folder / "report.json"
        file.write_text(file.read_text().replace(folder.name[:10], date))
        folder = folder.rename(folder.with_name(f"{date}__b.-other"))
        found = errors(verify(entry, str(good[0])))
        assert [line.split(": ")[1] for line in found] == ["date"], found


def test_only_listed_entries_are_held_to_old_rules(tmp_path: Path) -> None:
    """Those that ship verify; the same words with another date are held to today's."""
    from cpt_bench.files import digest
    from cpt_bench.leaderboard.before import RULES_OF
    from cpt_bench.leaderboard.entry import read_entry
    from cpt_bench.leaderboard.findings import Report
    from cpt_bench.leaderboard.rules import LATEST, check_rules
    from cpt_bench.suite import open_suite

    boards = ROOT / "leaderboards"
    rules = {}
    for file in sorted(boards.rglob("entry.yaml")):
        rules[digest(file)] = read_entry(file.parent).rules
        report = Report("x")
        check_rules(read_entry(file.parent), file.parent, {}, open_suite("nano"), report)
        assert not [f for f in report.errors if f.code == "rules-version"]
    assert {k: v for k, v in rules.items() if v != LATEST}.items() <= RULES_OF.items()
    old = next(f for f in boards.rglob("entry.yaml") if read_entry(f.parent).rules == "1")
    data = yaml.safe_load(old.read_text())
    (tmp_path / "entry.yaml").write_text(yaml.safe_dump({**data, "date": "2026-11-23"}))
    report = Report("x")
    check_rules(read_entry(tmp_path), tmp_path, {}, open_suite("nano"), report)
    assert [f.code for f in report.errors if f.code == "rules-version"] == ["rules-version"]


def test_a_board_of_published_entries_is_older(
    good: tuple[Path, Path], entry: Path, tmp_path: Path, cli: Any
) -> None:
    """A pull request from before the original was published, dated before it."""
    edit_entry(entry, date="2026-11-25")
    entry = entry.rename(entry.with_name(entry.name.replace("2026-11-22", "2026-11-25")))
    submitted = tmp_path / "submitted/leaderboards"
    copy = copy_entry(entry, name="Backdated", date="2026-11-22", **OTHER)
    inside = copy.relative_to(copy.parents[3])
    (submitted / inside).parent.mkdir(parents=True)
    (submitted / "RULES.md").write_text("rules\n")
    copy.rename(submitted / inside)
    args = ["verify", submitted, "--suite", good[0]]
    assert cli(*args).returncode == 0
    done = cli(*args, "--among", entry.parents[3])
    assert (
        done.returncode == 1
        and "error: copy: seed-0: is seed-0 of small/1.0/closed/2026-11-25" in done.stdout
    )
