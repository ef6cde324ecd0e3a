"""Verifying, old formats, light installs, statistics, and the whole way of a new user."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.entry import read_entry, slug
from cpt_bench.leaderboard.findings import Status
from cpt_bench.leaderboard.pack import About
from cpt_bench.leaderboard.stats import Mean, differ, mean_of, predicted, ranks, t95, wilson
from cpt_bench.leaderboard.verify import verify
from tests.support.commands import LIGHT, here
from tests.support.places import ROOT, TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
ABOUT = About("A method", ("A. Uthor",), date="2026-11-22", notes="A test.")


@pytest.fixture
def copy(good: tuple[Path, Path], tmp_path: Path) -> Path:
    inside = good[1].relative_to(good[1].parents[3])
    return Path(shutil.copytree(good[1], tmp_path / "leaderboards" / inside))


# ---------------------------------------------------------------------------------- verifying


def test_the_draft_format_stays_readable() -> None:
    """Format 1, kept as it was written then."""
    kept = next((ROOT / "tests/support/entries/format1").glob("2026*"))
    entry = read_entry(kept)
    assert (entry.format, entry.rules, entry.name, entry.suite.name) == (2, "0", "Draft", "small")
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 10_000)  # as it was packed
        report = verify(kept, str(kept.parent / "suite")).report
    assert [f.line() for f in report.errors] == []
    assert report.verdict == "verified"
    # Drops from a peak had another interval then: that is said, and only their values are proven.
    assert {f.code for f in report.findings() if "FM: its interval" in f.what} == {
        "interval-method"
    }


def test_verify_needs_only_the_light_install(good: tuple[Path, Path]) -> None:
    for args in (
        ["verify", str(good[1]), "--suite", str(good[0]), "--json"],
        ["leaderboard", "build", str(good[1].parents[3]), "--suite", str(good[0]), "--out", str(good[0].parent / "site")],
    ):  # fmt: skip
        code = LIGHT.replace(
            "from cpt_bench.cli",
            "import cpt_bench.results.scoring as s; s.DRAWS = 200\nfrom cpt_bench.cli",
        )
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout


def test_absent_gold_is_unverifiable_not_refuted(
    good: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpt_bench.leaderboard import verify as module

    monkeypatch.setattr(module, "gold_of", lambda suite, name: f"{name} is not on this machine")
    report = verify(good[1], str(good[0])).report
    assert report.verdict == "unverifiable" and not report.errors
    assert any("science is not on this machine" in f.line() for f in report.findings())
    assert {c.status for c in report.claims if "AvgAcc" in c.name} == {Status.unverifiable}


def test_an_entry_cannot_choose_what_is_imported(
    copy: Path, good: tuple[Path, Path], tmp_path: Path, cli: Cli
) -> None:
    """Neither a folder of the suite's name in the working folder nor a path is ever opened."""
    evil = tmp_path / "small"
    shutil.copytree(good[0], evil)
    card = evil / "text.yaml"
    card.write_text(card.read_text().replace("cpt_bench.tasks.nano.samples:make", "evil:make"))
    (tmp_path / "evil.py").write_text("open('touched', 'w')\n")
    done = cli("verify", copy)
    assert done.returncode == 1
    assert "suite-unknown: entry.yaml: no suite 'small' is installed" in done.stdout
    assert not (tmp_path / "touched").exists()


def test_verify_on_the_command_line(
    copy: Path, good: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    file = copy / "seed-0/matrix.json"
    file.write_text(file.read_text().replace("percent", "per mille"))
    done = cli("verify", "leaderboards", "--suite", good[0], "--json")
    report = json.loads(done.stdout)["entries"][0]
    assert done.returncode == 1 and report["verdict"] == "refuted"
    assert {f["code"] for f in report["findings"]} >= {"digest", "size", "matrix"}
    assert cli("verify", "nowhere").stderr.strip().startswith("cptbench: nowhere: no such folder")


def test_a_mistyped_option_is_told_at_once(
    good: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    """One line and nothing written, not a finding against an entry."""
    (tmp_path / "file").touch()
    run = good[0].parent / "run0"
    submit = ["submit", run, "--name", "x", "--author", "y"]
    for args, words in (
        (["verify", good[1], "--suite", "nowhere"], "no suite is called 'nowhere'"),
        ([*submit, "--suite", "nowhere"], "no suite is called 'nowhere'"),
        ([*submit, "--out", "file"], "file: is not a directory. Give another --out"),
        (["leaderboard", "build", "--out", "file"], "file: is not a directory. Give another --out"),
        (["reproduce", good[1], "--by", "", "--suite", good[0]], "a name has 1 to 100 characters"),
    ):
        done = cli(*args)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# ----------------------------------------------------------------------- what is published stays


def git(where: Path, *args: str) -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(where), *name, *args], check=True, capture_output=True)


def test_published_entries_may_not_change(
    copy: Path, good: tuple[Path, Path], tmp_path: Path
) -> None:
    from cpt_bench.leaderboard.changed import changed_entries

    boards = tmp_path / "leaderboards"
    (boards / "RULES.md").write_text("rules\n")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    assert changed_entries([boards], "HEAD") == ([], [])
    other = copy.parent / copy.name.replace("sft-small", "other")
    shutil.copytree(copy, other)
    (copy / "seed-0/recipe.json").write_text("{}\n")
    (boards / "small/loose.txt").write_text("x")
    (other / "reproductions/2026-11-23__me").mkdir(parents=True)
    (other / "reproductions/2026-11-23__me/report.json").write_text("{}\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "two")
    fresh, lines = changed_entries([boards], "HEAD~1")
    assert fresh == sorted([copy, other])
    assert [line.split(": ")[1] for line in lines] == ["published", "self-reproduced", "stray-file"]
    # Somebody adds a reproduction to what is published: that is allowed.
    (copy / "reproductions/2026-11-24__b").mkdir(parents=True)
    (copy / "reproductions/2026-11-24__b/report.json").write_text("{}\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "three")
    assert changed_entries([boards], "HEAD~1") == ([copy], [])
    shutil.rmtree(copy)
    git(tmp_path, "commit", "-qam", "four")
    assert changed_entries([boards], "HEAD~1")[1][0].startswith("error: published: ")
    with pytest.raises(CptBenchError, match=r"holds no boards\. With --changed-since, give the"):
        changed_entries([other], "HEAD")
    with pytest.raises(CptBenchError, match="no-such-commit"):
        changed_entries([boards], "no-such-commit")


def test_the_workflows_only_read() -> None:
    folder = ROOT / ".github/workflows"
    check = yaml.safe_load((folder / "entries.yml").read_text())
    assert check["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in (folder / "entries.yml").read_text()
    steps = check["jobs"]["verify"]["steps"]
    runs = " ".join(step.get("run", "") for step in steps)
    assert "${{" not in runs  # nothing of a pull request is pasted into a shell
    assert runs.count("pip install") == 1 and "pip install './trusted[gym]'" in runs
    comment = yaml.safe_load((folder / "entries-comment.yml").read_text())
    assert set(comment["permissions"]) == {"actions", "pull-requests"}
    assert not any(
        "checkout" in step.get("uses", "") for step in comment["jobs"]["comment"]["steps"]
    )


# --------------------------------------------------------------------------------- statistics


def test_t_quantiles_and_intervals() -> None:
    assert t95(2) == 4.303 and t95(2.9) == 4.303 and t95(0.5) == math.inf
    assert t95(40) == pytest.approx(2.021, abs=2e-3) and t95(1e6) == pytest.approx(1.96, abs=1e-3)
    got = mean_of([1.0, 2.0, 3.0])
    assert (got.mean, got.sd, got.n) == (2.0, 1.0, 3)
    assert got.half == pytest.approx(4.303 / math.sqrt(3))
    assert mean_of([5.0]) == Mean(5.0, None, None, 1)
    low, high = wilson(50, 100, z=1.96)
    assert (low, high) == (pytest.approx(40.38, abs=0.01), pytest.approx(59.62, abs=0.01))
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-9)
    low, high = predicted([1.0, 2.0, 3.0], floor=0.1)
    assert high - 2 == pytest.approx(4.303 * math.sqrt(1 + 1 / 3)) == 2 - low
    assert predicted([2.0], floor=1.5) == (0.5, 3.5)


def test_ranks_are_ranges_where_methods_tie() -> None:
    a, b, c = mean_of([50, 51, 52]), mean_of([50.5, 51, 52]), mean_of([30, 31, 32])
    assert differ(a, c) and not differ(a, b)
    assert ranks([a, b, c, mean_of([99.0])]) == [(1, 2), (1, 2), (3, 3), None]
    assert differ(mean_of([1, 1]), mean_of([2, 2])) and not differ(mean_of([1, 1]), mean_of([1, 1]))


def test_slugs() -> None:
    assert slug("RFT (GRPO)") == "rft-grpo" and slug("Äther/..\\x") == "ather-..-x"
    assert slug("<img onerror=…>") == "img-onerror" and slug("…") == "method"


# ------------------------------------------------------------------------ as a new user would


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_a_run_to_a_verified_row_with_four_commands(tiny_model: Path, tmp_path: Path) -> None:
    """run (a seed at a time), submit, verify, leaderboard build; then reproduce."""
    pytest.importorskip("torch")
    suite = Path(shutil.copytree(TINY, tmp_path / "tiny"))

    def cptbench(*args: object, own_process: bool = True) -> str:
        if own_process:
            done = subprocess.run(
                [sys.executable, "-m", "cpt_bench", *map(str, args)],
                capture_output=True, text=True, timeout=900, cwd=tmp_path,
            )  # fmt: skip
        else:
            from cpt_bench.results import scoring

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(scoring, "DRAWS", 10_000)  # as in the other processes
                done = here(tmp_path, *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    small = ["--set", "learning_rate=1e-3", "--set", "max_steps=2", "--set", "device=cpu"]
    for seed in range(3):
        cptbench("run", "--trainer", "sft", "--suite", "tiny", "--base", tiny_model, "--seed", seed,
                 *small, "--out", f"runs/seed{seed}", own_process=seed == 0)  # fmt: skip
    said = cptbench("submit", "runs/seed0", "runs/seed1", "runs/seed2", "--name", "My <b>method</b>",
                    "--author", "Me", "--notes", "Two steps.", "--suite", "tiny")  # fmt: skip
    entry = tmp_path / said.splitlines()[-1].split("  ")[0]
    assert entry.is_dir()
    assert (
        cptbench("verify", "leaderboards", "--suite", "tiny")
        .splitlines()[-1]
        .startswith("verified: ")
    )
    cptbench("leaderboard", "build", "--suite", "tiny", "--out", "site")
    row = json.loads((tmp_path / "site/leaderboard.json").read_text())["rows"][0]
    claimed = [json.loads((tmp_path / f"runs/seed{s}/metrics.json").read_text()) for s in range(3)]
    for key in ("Learn", "AvgAcc", "FM", "GeneralDelta"):
        mean = sum(c[key]["value"] for c in claimed) / 3
        assert row["metrics"][key][0] == pytest.approx(mean, abs=1e-3)
    assert row["badge"] == "rescored" and row["rank"] == [1, 1]
    page = (tmp_path / "site" / row["page"]).read_text()
    assert "Verification: verified" in page and "My &lt;b&gt;method&lt;/b&gt;" in page
    # Somebody else asks the same weights again, on a share of the questions.
    again = cptbench("reproduce", entry, "--by", "You", "--checkpoints", "runs/seed0", "--sample", "50%",
                     "--suite", "tiny", own_process=False)  # fmt: skip
    assert again.splitlines()[-1] == "reproduced"
    cptbench("leaderboard", "build", "--suite", "tiny", "--out", "site")
    row = json.loads((tmp_path / "site/leaderboard.json").read_text())["rows"][0]
    assert row["badge"] == "reproduced"
    # And trains one seed again: the same numbers on the same machine.
    again = cptbench("reproduce", entry, "--by", "They", "--base", tiny_model, "--seed", 1,
                     "--suite", "tiny", "--work", "runs/again", own_process=False)  # fmt: skip
    assert again.splitlines()[-1] == "reproduced"
    suite.rename(tmp_path / "gone")  # an entry needs no path of the machine it was made on


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["nano", "gym"])
def test_the_shipped_entries_verify(suite: str) -> None:
    """Fast enough for every day: the first one whole, the others' files, schema and rules."""
    from cpt_bench.leaderboard.changed import find_entries
    from cpt_bench.results import scoring

    if suite == "gym":
        pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    found = find_entries([ROOT / "leaderboards" / suite])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 10_000)  # as it was packed
        report = verify(found[0]).report
    assert [f.line() for f in report.errors] == [] and report.verdict == "verified"
    for other in found[1:]:
        assert read_entry(other).place().name == other.name
