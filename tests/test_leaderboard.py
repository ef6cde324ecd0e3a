"""Packing, old formats, light installs, reproductions, statistics, and the whole way of a new user."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.entry import read_entry, read_manifest, slug
from cpt_bench.leaderboard.findings import Status
from cpt_bench.leaderboard.pack import About, open_run, pack, zst
from cpt_bench.leaderboard.recompute import abridge
from cpt_bench.leaderboard.stats import Mean, differ, mean_of, predicted, ranks, t95, wilson
from cpt_bench.leaderboard.verify import verify
from tests.conftest import TINY, here
from tests.entries.make import make_entry, make_run, make_suite
from tests.test_cli import LIGHT

Cli = Callable[..., subprocess.CompletedProcess[str]]
HERE = Path(__file__).parent
ABOUT = About("A method", ("A. Uthor",), date="2026-11-22", notes="A test.")


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(suite, entry), not to be changed; the runs are beside the suite."""
    return make_entry(tmp_path_factory.mktemp("good"))


@pytest.fixture
def copy(good: tuple[Path, Path], tmp_path: Path) -> Path:
    inside = good[1].relative_to(good[1].parents[3])
    return Path(shutil.copytree(good[1], tmp_path / "leaderboards" / inside))


# ------------------------------------------------------------------------------------ packing


@pytest.fixture
def run(good: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(good[0].parent / "run0", tmp_path / "run"))


def edit_run(run: Path, **changes: Any) -> None:
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_limited_run_is_refused(run: Path) -> None:
    edit_run(run, limit=8)
    with pytest.raises(
        CptBenchError, match=r"was limited to 8 samples a split\. Run it again without"
    ):
        open_run(run)


def test_an_unfinished_run_is_refused(run: Path) -> None:
    (run / "stages/3-text/predictions/science.jsonl").unlink()
    with pytest.raises(
        CptBenchError, match="is not finished: science was not evaluated after stage 3"
    ):
        open_run(run)


def test_altered_predictions_are_refused(run: Path) -> None:
    file = run / "stages/3-text/predictions/science.jsonl"
    file.write_text(file.read_text().replace("zz", "B", 1))
    with pytest.raises(
        CptBenchError, match=r"science\.jsonl was changed or removed after step stage-3"
    ):
        open_run(run)


def test_altered_numbers_are_refused(run: Path) -> None:
    file = run / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["AvgAcc"]["value"] += 1
    file.write_text(json.dumps(metrics))
    with pytest.raises(CptBenchError, match=r"metrics\.json: AvgAcc\.value is"):
        open_run(run)


def test_a_joint_run_is_refused(run: Path) -> None:
    """It is finished without the rows in between: the same command would not finish it."""
    edit_run(run, privileges={"joint": True})
    shutil.rmtree(run / "stages/1-science")
    with pytest.raises(CptBenchError, match=r"trained all tasks at once.*`cptbench compare` shows"):
        open_run(run)


def test_a_run_without_ledger_is_refused(run: Path) -> None:
    shutil.rmtree(run / "ledger")
    with pytest.raises(CptBenchError, match="has no ledger"):
        open_run(run)


def test_seeds_of_two_experiments_are_refused(
    good: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    edit_run(run, seed=5, config={"learning_rate": 0.5})
    runs = [good[0].parent / "run1", run]
    with pytest.raises(
        CptBenchError, match=r"its config differs \(learning_rate: 0\.0001 and 0\.5"
    ):
        pack(runs, ABOUT, tmp_path / "b")
    with pytest.raises(CptBenchError, match="has the seed 1 like another run given"):
        pack([runs[0], runs[0]], ABOUT, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("origin", {"spec": "./b/mine.py:Mine", "sha256": "b"}, "origin differs .sha256: 'a' and"),
        ("budget", {"samples": 640}, "budget differs .None and 640"),
        ("launch", "torchrun --nproc_per_node 8", "launch differs .None and 'torchrun"),
        ("engine", {"name": "vllm", "settings": {}}, "engine differs .None and"),
    ],
)
def test_seeds_differ_in_nothing_but_their_seed(
    key: str, value: Any, words: str, good: tuple[Path, Path], tmp_path: Path
) -> None:
    """Another code hash, budget, launcher or engine is another experiment; another folder is not."""
    runs = [shutil.copytree(good[0].parent / f"run{s}", tmp_path / f"run{s}") for s in range(2)]
    for run in runs:
        origin = {"spec": f"./{run.name}/mine.py:Mine", "sha256": "a"}
        edit_run(run, origin=origin)
    edit_run(runs[0], budget=None)  # as runs of before
    pack(runs, ABOUT, tmp_path / "alike")
    edit_run(runs[1], **{key: value})
    with pytest.raises(CptBenchError, match=f"its {words}"):
        pack(runs, ABOUT, tmp_path / "b")


def test_an_entry_is_never_rewritten(good: tuple[Path, Path], tmp_path: Path) -> None:
    runs = [good[0].parent / f"run{seed}" for seed in range(3)]
    with pytest.raises(CptBenchError, match="paper: not an https:// link"):
        pack(runs, ABOUT._replace(paper="ftp://x"), tmp_path)
    pack(runs, ABOUT, tmp_path)
    with pytest.raises(CptBenchError, match="there is an entry already"):
        pack(runs, ABOUT, tmp_path)


def test_packing_is_deterministic(good: tuple[Path, Path], tmp_path: Path) -> None:
    runs = [good[0].parent / f"run{seed}" for seed in range(3)]
    one, two = (pack(order, ABOUT, tmp_path / str(i)) for i, order in enumerate((runs, runs[::-1])))
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)
    assert len(files) == 1 + 3 * (6 + 16)


def test_nothing_of_a_machine_is_in_an_entry(good: tuple[Path, Path]) -> None:
    import zstandard

    for file in good[1].rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            if file.suffix == ".zst":
                data = zstandard.ZstdDecompressor().decompress(data)
            assert str(good[0].parent).encode() not in data, file


def test_a_test_question_among_extra_data_is_refused(
    good: tuple[Path, Path], tmp_path: Path
) -> None:
    from cpt_bench.sources import load_split
    from cpt_bench.suite import load_suite

    sample = load_split(load_suite(good[0]).card("science"), "test")[3]
    (tmp_path / "0.ppm").write_bytes(sample.images[0])
    rows = [{"question": "Why?"}, {"question": sample.question, "images": ["0.ppm"]}]
    file = tmp_path / "more.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = [good[0].parent / f"run{seed}" for seed in range(3)]
    about = ABOUT._replace(division="open", extra_data="some")
    with pytest.raises(CptBenchError, match="line 2 is a test question of science"):
        pack(runs, about, tmp_path / "b", extra_questions=file)
    file.write_text(json.dumps({"question": "Why?", "images": ["gone.png"]}) + "\n")
    with pytest.raises(CptBenchError, match="line 1: its picture cannot be read"):
        pack(runs, about, tmp_path / "b", extra_questions=file)
    file.write_text(json.dumps(rows[0]) + "\n")
    report = verify(pack(runs, about, tmp_path / "b", extra_questions=file), str(good[0])).report
    assert report.verdict == "verified"
    assert any(c.value == "1 questions" and c.status is Status.self_reported for c in report.claims)


def test_long_thoughts_go_to_a_side_file_and_grade_alike(tmp_path: Path) -> None:
    """What is in git stays small; without the side file every number is still verified."""
    from cpt_bench.files import read_jsonl, write_jsonl
    from cpt_bench.results.scoring import write_scores

    suite = make_suite(tmp_path / "suite")
    run = make_run(tmp_path / "run", suite, 0)
    file = run / "stages/2-counting/predictions/science.jsonl"
    rows = read_jsonl(file)
    for row in rows[:5]:
        answer = row["reply"].partition("<answer>")[2]
        row["reply"] = f"<think>{'so it is ' * 100}</think><answer>{answer}"
    write_jsonl(file, rows)
    record = run / "ledger/stage-2.evaluate.science.json"
    from cpt_bench.files import digest

    data = json.loads(record.read_text())
    data["outputs"] = {k: digest(file) for k in data["outputs"]}
    record.write_text(json.dumps(data))
    write_scores(run)
    about = ABOUT._replace(division="open")
    entry = pack([run], about, tmp_path / "b")
    side = entry / "seed-0/replies/2-counting/science.jsonl.zst"
    assert side.is_file()
    assert [f.line() for f in verify(entry, str(suite)).report.findings()] == []
    shutil.rmtree(entry / "seed-0/replies")
    assert verify(entry, str(suite)).report.errors == []
    side.parent.mkdir(parents=True)
    zst(side, [b'{"id": "science-test-00000", "reply": "<think>no</think><answer>A</answer>"}\n'])
    codes = {f.code for f in verify(entry, str(suite)).report.errors}
    assert codes == {"digest", "size", "side-file"}


def test_only_what_cannot_matter_is_cut() -> None:
    from cpt_bench.suite import load_suite

    form = load_suite(TINY).protocol.form
    long = "x" * 999
    assert abridge(f"<think>{long}</think><answer>A</answer>", form, 400) == (
        "<think>[999 characters]</think><answer>A</answer>"
    )
    for kept in (
        f"<think>{long}<answer>A</answer>",  # never closed
        f"<think>{long}<think></think><answer>A</answer>",  # opened twice
        f"{long}<answer>A</answer>",
        "<think>short</think><answer>A</answer>",
    ):
        assert abridge(kept, form, 400) == kept


def test_methods_trained_elsewhere_have_entries(tmp_path: Path) -> None:
    """Checkpoints, whose training nobody recorded, and predictions, of weights nobody knows."""
    from cpt_bench.run.lanes import import_predictions
    from cpt_bench.suite import load_suite

    suite = make_suite(tmp_path / "suite")
    run = make_run(tmp_path / "run", suite, 0, lane="checkpoints")
    for record in (run / "ledger").glob("*.train.json"):
        record.unlink()
    answers = tmp_path / "answers"
    for stage in (run / "stages").iterdir():
        shutil.copytree(stage / "predictions", answers / stage.name)
    import_predictions(answers, tmp_path / "told", load_suite(suite), str(suite), "mine", None)
    about = ABOUT._replace(division="open")
    with pytest.raises(CptBenchError, match=r"which model it started from\. Name it with --model"):
        pack([tmp_path / "told"], about, tmp_path / "b")
    for i, (folder, model) in enumerate(((run, None), (tmp_path / "told", "Theirs"))):
        entry = pack([folder], about._replace(model=model), tmp_path / str(i))
        report = verify(entry, str(suite)).report
        assert [f.line() for f in report.errors] == [] and report.verdict == "verified"


# ---------------------------------------------------------------------------------- verifying


def test_the_draft_format_stays_readable() -> None:
    """Format 1, kept as it was written then."""
    kept = next((HERE / "entries/format1").glob("2026*"))
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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_verify_in_an_environment_without_torch(tmp_path: Path) -> None:
    """A fresh virtual environment with the wheel and its light dependencies, nothing else."""
    wheels = tmp_path / "wheels"
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(wheels),
        str(HERE.parent),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv/bin/python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        next(wheels.glob("*.whl")),
    ]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(install, capture_output=True, text=True, timeout=400, env=env)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("pip reaches no package index here")
    assert done.returncode == 0, done.stderr
    call = {"capture_output": True, "text": True, "env": env, "cwd": tmp_path}
    assert subprocess.run([python, "-c", "import torch"], **call).returncode == 1
    entries = sorted((HERE.parent / "leaderboards/nano").rglob("entry.yaml"))
    assert entries, "the shipped entries"
    done = subprocess.run([tmp_path / "venv/bin/cptbench", "verify", entries[0].parent], **call)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("verified: ")


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
    assert "suite-unknown: entry.yaml: no suite 'small' ships with cptbench" in done.stdout
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
        (["verify", good[1], "--suite", "nowhere"], "no suite 'nowhere' ships"),
        ([*submit, "--suite", "nowhere"], "no suite 'nowhere' ships"),
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
    folder = HERE.parent / ".github/workflows"
    check = yaml.safe_load((folder / "entries.yml").read_text())
    assert check["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in (folder / "entries.yml").read_text()
    steps = check["jobs"]["verify"]["steps"]
    runs = " ".join(step.get("run", "") for step in steps)
    assert "${{" not in runs  # nothing of a pull request is pasted into a shell
    assert runs.count("pip install") == 1 and "pip install ./trusted" in runs
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


# ------------------------------------------------------------------------------- reproductions


def write_reproduction(entry: Path, by: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """A rerun of seed 0 whose answers are those of seed 0, changed."""
    from tests.test_tampering import rows

    folder = entry / "reproductions" / f"2026-11-25__{slug(by)}"
    for file in (entry / "seed-0/predictions").rglob("*.zst"):
        new = rows(file)
        if file.parent.name == "3-text":
            change(new)
        target = folder / "predictions" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        kept = ({k: row[k] for k in ("id", "reply", "tokens")} for row in new)
        zst(target, ((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in kept))
    from cpt_bench.leaderboard.reproduce import _report

    said = {
        "kind": "rerun",
        "seed": 0,
        "sample": 1.0,
        "weights": {},
        "versions": {},
        "hardware": {},
    }
    _report(folder, by, "2026-11-25", said)


def forget(new: list[dict[str, Any]]) -> None:
    for row in new:
        row["reply"] = "<answer>zz</answer>"


def badge(entry: Path, suite: Path) -> str:
    from cpt_bench.leaderboard.site.collect import row_of

    return row_of(verify(entry, str(suite)), "x").badge


def test_a_reproduction_lifts_the_badge(copy: Path, good: tuple[Path, Path]) -> None:
    assert badge(copy, good[0]) == "rescored"
    write_reproduction(copy, "A. Uthor", lambda new: None)  # by an author: counts for nothing
    done = verify(copy, str(good[0]))
    assert done.reproductions[0].reproduced and not done.reproductions[0].independent
    assert badge(copy, good[0]) == "rescored"
    write_reproduction(copy, "B. Other", lambda new: new[0].update(reply="<answer>zz</answer>"))
    assert badge(copy, good[0]) == "reproduced"


def test_a_reproduction_that_comes_out_differently(copy: Path, good: tuple[Path, Path]) -> None:
    write_reproduction(copy, "B. Other", forget)
    done = verify(copy, str(good[0]))
    assert not done.reproductions[0].reproduced
    off = {c.name for c in done.reproductions[0].comparisons if not c.within}
    assert {"AvgAcc", "FM"} <= off
    assert badge(copy, good[0]) == "rescored"


def rerun_of(
    entry: Path, suite: str | None, monkeypatch: pytest.MonkeyPatch, **recipe: Any
) -> list[str]:
    """The command that would train seed 0 again, had it run under ``recipe`` on a variant."""
    from cpt_bench.leaderboard import reproduce

    seen: list[list[str]] = []

    def refuse(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(reproduce.subprocess, "run", refuse)
    file = entry / "seed-0/recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | recipe))
    done = verify(entry, suite and suite.partition("@")[0])
    manifest = read_manifest(entry / "seed-0")
    mini = manifest.suite.model_copy(update={"variant": "mini"})
    manifest = manifest.model_copy(
        update={"suite": mini, "privileges": {"replay_samples_per_task": 8, "joint": False}}
    )
    with pytest.raises(CptBenchError, match="the rerun failed"):
        reproduce._rerun(done, 0, manifest, "cmd:me {stage}", None, None, suite)
    return seen[0]


def test_a_seed_is_trained_again_as_it_was(
    copy: Path, good: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same variant of the suite, with the same budget, launcher and engine."""
    chosen = {
        "budget": {"samples": 640},
        "launch": "torchrun --nproc_per_node 2",
        "engine": {"name": "vllm", "settings": {"memory": 0.4}},
    }
    command = rerun_of(copy, f"{good[0]}@other", monkeypatch, **chosen)
    options = dict(itertools.pairwise(command))
    assert options["--suite"] == f"{good[0]}@mini"
    assert (options["--budget"], options["--launch"]) == ("640", chosen["launch"])
    assert (options["--engine"], options["--engine-set"]) == ("vllm", "memory=0.4")
    assert "--privilege=replay_samples_per_task=8" in command
    assert not any("joint" in word for word in command)
    assert "small@mini" in rerun_of(copy, None, monkeypatch)


@pytest.mark.parametrize(
    "recipe",
    [
        {"launch": "torchrun evil.py"},
        {"launch": "accelerate launch --config_file evil.yaml"},
        {"engine": {"name": "./evil.py:Engine", "settings": {}}},
    ],
)
def test_an_entry_does_not_choose_what_is_run(recipe: dict[str, Any]) -> None:
    from cpt_bench.leaderboard.reproduce import _chosen

    with pytest.raises(CptBenchError, match="--checkpoints"):
        _chosen(recipe)


Rows = dict[tuple[str, str], list[dict[str, Any]]]


def write_sample(entry: Path, change: Callable[[Rows], Any]) -> None:
    """A tenth of the questions of stages 1 and 3, asked of seed 0's weights again; then changed."""
    from cpt_bench.leaderboard.reproduce import _report, _table
    from cpt_bench.leaderboard.reproductions import sampled
    from tests.test_tampering import rows

    weights = json.loads((entry / "seed-0/manifest.json").read_text())["weights"]
    asked: Rows = {}
    for stage in ("1-science", "3-text"):
        for file in (entry / "seed-0/predictions" / stage).glob("*.zst"):
            all_ = {row["id"]: row for row in rows(file)}
            drawn = sampled(all_, 0.1, weights[stage])
            name = file.name.partition(".")[0]
            asked[stage, name] = [row for i, row in all_.items() if i in drawn]
    change(asked)
    folder = entry / "reproductions/2026-11-25__b.-other"
    for (stage, name), kept in asked.items():
        _table(folder, stage, name, kept)
    found = {stage: weights[stage] for stage in ("1-science", "3-text")}
    said = {"kind": "checkpoints", "seed": 0, "sample": 0.1, "weights": found}
    _report(folder, "B. Other", "2026-11-25", {**said, "versions": {}, "hardware": {}})


def only(*cells: tuple[str, str]) -> Callable[[Rows], Any]:
    return lambda asked: [asked.pop(cell) for cell in [*asked] if cell not in cells]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda asked: None, ""),
        (only(("3-text", "text")), "1-science/science.jsonl.zst: answers 0 of the 6 questions"),
        (lambda asked: asked["3-text", "text"].pop(), "answers 5 of the 6 questions drawn"),
        (
            lambda asked: asked["3-text", "text"][0].update(id="text-test-00059"),
            "answers 5 of the 6 questions drawn, and 1 others",
        ),
        (lambda asked: asked.update({("2-counting", "text"): asked["3-text", "text"]}), "of the 0"),
    ],
)
def test_a_reproduction_asks_the_questions_that_were_drawn(
    change: Callable[[Rows], Any], words: str, copy: Path, good: tuple[Path, Path]
) -> None:
    write_sample(copy, change)
    done = verify(copy, str(good[0]))
    assert [r.reproduced for r in done.reproductions] == ([] if words else [True])
    assert not words or any(words in f.line() for f in done.report.errors if f.code == "sample")


def test_a_rerun_answers_all_questions(copy: Path, good: tuple[Path, Path]) -> None:
    """Whatever share its report names."""
    write_reproduction(copy, "B. Other", lambda new: new.pop(7))
    report = copy / "reproductions/2026-11-25__b.-other/report.json"
    report.write_text(report.read_text().replace('"sample": 1.0', '"sample": 0.5'))
    done = verify(copy, str(good[0]))
    assert not done.reproductions
    assert {f.code for f in done.report.errors} == {"missing-id"}


def test_a_sample_is_chosen_by_nobody() -> None:
    from cpt_bench.leaderboard.reproductions import sampled

    ids = [f"t-{i}" for i in range(300)]
    one, two = sampled(ids, 0.1, "weights a"), sampled(reversed(ids), 0.1, "weights a")
    assert one == two and len(one) == 30 and one != sampled(ids, 0.1, "weights b")
    assert len(sampled(ids, 1e-9, "w")) == 1


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


def test_the_shipped_entries_verify() -> None:
    """Fast enough for every day: the first one whole, the others' files, schema and rules."""
    from cpt_bench.leaderboard.changed import find_entries

    found = find_entries([HERE.parent / "leaderboards"])
    if not found:
        pytest.skip("no entry is shipped")
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 10_000)  # as it was packed
        report = verify(found[0]).report
    assert [f.line() for f in report.errors] == [] and report.verdict == "verified"
    for other in found[1:]:
        assert read_entry(other).place().name == other.name
