"""Whole runs on the tiny suite: the same numbers twice, resumed exactly, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from tests.support.commands import LIGHT, Cli, here, sft_args
from tests.support.places import TINY
from tests.support.waiting import wait_for


def test_what_a_run_leaves(finished: Path) -> None:
    matrix = json.loads((finished / "matrix.json").read_text())
    assert matrix["tasks"] == ["science", "lowvision", "counting"]
    assert len(matrix["accuracy"]) == 4 and all(len(row) == 3 for row in matrix["accuracy"])
    metrics = json.loads((finished / "metrics.json").read_text())
    for key in ("Learn", "AvgAcc", "FM", "BWT", "FWT", "Gain", "GeneralDelta"):
        assert {"value", "formula", "n", "interval"} <= metrics[key].keys()
        assert metrics[key]["value"] is not None
    for key in ("Lost_mode", "Lost_content", "KL_new", "KL_general"):
        assert metrics[key]["value"] is not None and metrics[key]["value"] >= 0
    rows = (finished / "stages/2-lowvision/kl.jsonl").read_text().splitlines()
    assert {json.loads(row)["name"] for row in rows} == {"lowvision", "knowledge"}
    run = json.loads((finished / "run.json").read_text())
    assert {"config", "versions", "hardware", "suite", "git", "seed", "origin"} <= run.keys()
    row = json.loads(
        (finished / "stages/2-lowvision/predictions/science.jsonl").read_text().splitlines()[0]
    )
    assert row.keys() == {"id", "reply", "tokens", "extracted", "score", "lenient", "format_ok"}


def test_score_rebuilds_metrics_byte_for_byte_without_torch(run_copy: Path) -> None:
    before = {f: (run_copy / f).read_bytes() for f in ("metrics.json", "matrix.json")}
    for name in before:
        (run_copy / name).unlink()
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, "score", str(run_copy)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {f: (run_copy / f).read_bytes() for f in before} == before


def test_score_regrades_rather_than_believes(run_copy: Path, cli: Cli) -> None:
    file = run_copy / "stages/3-counting/predictions/science.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["score"] = row["lenient"] = 1.0
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = (run_copy / "metrics.json").read_bytes()
    assert cli("score", run_copy).returncode == 0
    assert (run_copy / "metrics.json").read_bytes() == before


def test_score_names_what_is_missing(run_copy: Path, cli: Cli) -> None:
    (run_copy / "stages/3-counting/predictions/science.jsonl").unlink()
    done = cli("score", run_copy, "--json")
    average = json.loads(done.stdout)["AvgAcc"]
    assert average["value"] is None
    assert average["missing"] == ["R[3][1]: science after stage 3 (counting)"]
    file = run_copy / "stages/3-counting/predictions/lowvision.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
    done = cli("score", run_copy)
    assert done.returncode == 2 and "1 of 10 test samples have no prediction" in done.stderr


def test_a_finished_run_is_a_no_op_and_the_same_command_gives_the_same_matrix(
    finished: Path, tiny_model: Path, cli: Cli, tmp_path: Path
) -> None:
    stamp = {p: p.stat().st_mtime_ns for p in (finished / "ledger").iterdir()}
    done = cli(*sft_args(tiny_model, "--out", finished))
    assert "nothing to do" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in (finished / "ledger").iterdir()} == stamp
    # Without overlap and with weights dropped on the way: the same numbers.
    again = tmp_path / "again"
    done = cli(*sft_args(tiny_model, "--out", again, "--no-overlap", "--keep", "none"))
    assert done.returncode == 0, done.stderr
    assert (again / "matrix.json").read_bytes() == (finished / "matrix.json").read_bytes()
    assert (again / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
    assert not list(again.rglob("*.safetensors"))
    assert "nothing to do" in cli(*sft_args(tiny_model, "--out", again, "--keep", "none")).stdout


def test_another_run_in_the_folder_is_refused(run_copy: Path, tiny_model: Path, cli: Cli) -> None:
    done = cli(*sft_args(tiny_model, "--out", run_copy, "--seed", 1))
    assert done.returncode == 2 and "holds another run: its seed is 0, not 1" in done.stderr


def test_a_changed_output_is_found(run_copy: Path, tiny_model: Path, cli: Cli) -> None:
    file = run_copy / "stages/1-science/predictions/science.jsonl"
    file.write_text(file.read_text().replace('"score"', '"Score"', 1))
    done = cli(*sft_args(tiny_model, "--out", run_copy))
    assert done.returncode == 2
    assert "predictions/science.jsonl was changed or removed after step" in done.stderr


def test_orders_that_share_a_prefix_share_its_stages(
    tiny_model: Path, cli: Cli, tmp_path: Path
) -> None:
    args = [a for a in sft_args(tiny_model) if a != "--no-share"]
    first = cli(*args, "--out", "runs/a", "--json")
    second = cli(*args, "--out", "runs/b", "--order", "science,counting,lowvision", "--json")
    assert second.returncode == 0, second.stderr
    steps = json.loads(first.stdout)["costs"]["steps_done"]
    # Base row (4 files) and stage 1 (training, 4 files, KL) are taken from the first run.
    assert json.loads(second.stdout)["costs"]["steps_done"] == steps - 4 - 6


def test_a_truncated_checkpoint(run_copy: Path, tiny_model: Path, cli: Cli, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "cut"))
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])
    done = cli(*sft_args(model, "--out", tmp_path / "new"))
    assert done.returncode == 2
    assert f"{model}: the checkpoint cannot be loaded" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_corrupt_image() -> None:
    from cpt_bench.errors import CptBenchError
    from cpt_bench.images import decode, encode_ppm

    whole = encode_ppm(bytes(12), 2, 2)
    assert decode(whole, "here").size == (2, 2)
    for broken in (b"", b"GIF89a", whole[:-3], b"P6 99999 99999 255\n"):
        with pytest.raises(CptBenchError, match="science-test-00003: the image cannot be decoded"):
            decode(broken, "science-test-00003")


def test_a_full_disk(tiny_model: Path, tmp_path: Path) -> None:
    """Files may not grow beyond 100 kB: the checkpoint does not fit, what came before stays."""
    import resource

    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "cpt_bench",
        *sft_args(tiny_model, "--out", folder, "--no-overlap"),
    ]

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=small_files, timeout=300
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "File too large" in done.stderr
    assert not (folder / "stages/1-science/checkpoint").exists()
    assert len(list((folder / "ledger").glob("stage-0.*"))) == 4  # the base row is kept
    done = here(tmp_path, *command[3:])  # room was made
    assert done.returncode == 0, done.stderr


def test_ctrl_c(tiny_model: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "cpt_bench", *sft_args(tiny_model, "--out", folder)]
    # A test run in the background ignores the signal, and what it starts would do so too.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    wait_for(lambda: list((folder / "ledger").glob("stage-1.*")), 200)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == (
        f"cptbench: {folder}: interrupted. Finished steps are saved: run the same command again"
    )
    done = here(tmp_path, *command[3:])
    assert done.returncode == 0, done.stderr
    assert (folder / "matrix.json").read_bytes() == (finished / "matrix.json").read_bytes()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("pass", "wrote no *.safetensors"),
        ("raise ValueError('no idea')", "ValueError: no idea"),
        ("import os; print('so long'); os._exit(3)", "stage 1 (science), training: the process exited with 3; its last output: so long"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the process was killed by SIGKILL"),
    ],
)  # fmt: skip
def test_a_trainer_that_fails_is_one_line(
    body: str, complaint: str, tiny_model: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from cpt_bench.trainer import Trainer\n"
        f"class Mine(Trainer):\n    def train(self, stage):\n        {body}\n"
    )
    args = ["run", "--trainer", "./mine.py:Mine", "--suite", TINY, "--base", tiny_model]
    done = cli(*args, "--out", "run", "--no-overlap")
    assert done.returncode == (75 if "SIGKILL" in complaint else 2)  # killed: it may go through
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(list((tmp_path / "run/ledger").glob("stage-0.*"))) == 4


def test_a_trainer_that_copies_the_policy_forgets_nothing(
    tiny_model: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "import shutil\nfrom cpt_bench.trainer import Trainer\n"
        "class Copy(Trainer):\n    def train(self, stage):\n"
        "        shutil.copytree(stage.policy, stage.output, dirs_exist_ok=True)\n"
    )
    args = ["run", "--trainer", "./mine.py:Copy", "--suite", TINY, "--base", tiny_model, "--json"]
    done = cli(*args, "--out", "run")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = result["matrix"]["accuracy"]
    assert all(row == rows[0] for row in rows)
    assert result["metrics"]["FM"]["value"] == result["metrics"]["GeneralDelta"]["value"] == 0
