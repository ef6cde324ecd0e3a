"""Packing runs into entries: what is refused, and what an entry holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.findings import Status
from cpt_bench.leaderboard.pack import About, pack, zst
from cpt_bench.leaderboard.packable import open_run
from cpt_bench.leaderboard.tables import abridge
from cpt_bench.leaderboard.verify import verify
from tests.support.entries.make import make_entry, make_run, make_suite
from tests.support.places import TINY

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
