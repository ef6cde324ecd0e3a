"""What was trained elsewhere: checkpoints, adapters and predictions give the same run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import Cli

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from tests.support.places import TINY


def test_checkpoints_give_the_matrix_that_their_run_gave(
    finished: Path,
    tiny_model: Path,
    cli: Cli,
    tmp_path: Path,
) -> None:
    stages = finished / "stages/*"
    done = cli("eval", "--stages", stages, "--suite", TINY, "--base", tiny_model, "--out", "e",
               "--no-share")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "e/matrix.json").read_bytes() == (finished / "matrix.json").read_bytes()
    assert json.loads((tmp_path / "e/run.json").read_text())["lane"] == "checkpoints"


def test_adapters_give_the_matrix_of_the_models_they_make(
    tiny_model: Path, cli: Cli, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from cpt_bench.models.checkpoint import load_model, load_processor

    for t in (1, 2, 3):
        torch.manual_seed(t)
        model = load_model(tiny_model, device="cpu", attention="eager")
        wrapped = get_peft_model(
            model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        )
        wrapped.peft_config["default"].base_model_name_or_path = str(tiny_model)
        wrapped.save_pretrained(tmp_path / f"adapters/stage-{t}")
        whole = tmp_path / f"whole/stage-{t}"
        wrapped.merge_and_unload().save_pretrained(whole)
        load_processor(tiny_model).save_pretrained(whole)
    for kind in ("adapters", "whole"):
        done = cli("eval", "--stages", f"{kind}/stage-*", "--suite", TINY, "--base", tiny_model,
                   "--out", f"run-{kind}", "--limit", 5, "--no-share")  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, other = (tmp_path / f"run-{kind}/matrix.json" for kind in ("adapters", "whole"))
    assert one.read_bytes() == other.read_bytes()
    replies = [
        sorted((tmp_path / f"run-{k}").rglob("predictions/*.jsonl")) for k in ("adapters", "whole")
    ]
    assert [f.read_bytes() for f in replies[0]] == [f.read_bytes() for f in replies[1]]


def test_one_model_gives_its_row(tiny_model: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("eval", tiny_model, "--suite", TINY, "--limit", 3, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert None not in result["matrix"]["accuracy"][0]
    assert result["matrix"]["accuracy"][1:] == [[None] * 3] * 3
    assert result["metrics"]["AvgAcc"]["value"] is None  # and never an average of what is there
    assert result["metrics"]["BaseAcc"]["value"] is not None


def test_predictions_give_the_matrix_of_the_run_they_are_from(
    finished: Path,
    cli: Cli,
    tmp_path: Path,
) -> None:
    done = cli("export", "prompts", "--suite", TINY, "--out", "q")
    assert done.returncode == 0, done.stderr
    asked = [json.loads(line) for line in (tmp_path / "q/lowvision.jsonl").read_text().splitlines()]
    assert asked[0].keys() == {"id", "prompt", "images"}
    assert (tmp_path / "q" / asked[0]["images"][0]).read_bytes()[:2] == b"P6"
    for stage in sorted((finished / "stages").iterdir()):
        for file in (stage / "predictions").glob("*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            bare = [{"id": r["id"], "reply": r["reply"]} for r in rows]
            target = tmp_path / "replies" / stage.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("".join(json.dumps(r) + "\n" for r in bare))
    done = cli("score", "replies", "--suite", TINY, "--name", "mine", "--out", "scored")
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        json.loads((f / "matrix.json").read_text()) for f in (tmp_path / "scored", finished)
    )
    assert (
        ours["accuracy"] == theirs["accuracy"]
        and ours["general"]["accuracy"] == theirs["general"]["accuracy"]
    )
    assert json.loads((tmp_path / "scored/run.json").read_text())["lane"] == "predictions"
    shutil.rmtree(tmp_path / "scored")
    (tmp_path / "replies/1-science/sciense.jsonl").write_text("")
    done = cli("score", "replies", "--suite", TINY, "--out", "scored")
    assert done.returncode == 2 and "has no task 'sciense'" in done.stderr
    assert not (tmp_path / "scored").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["eval"], "give one MODEL, or --stages, or --endpoint"),
        (["eval", "--stages", "nowhere/*"], "0 checkpoints match, nano has 7 stages"),
        (["eval", "one", "--base", "two"], "--base goes with --stages"),
        (["eval", "nowhere"], "nowhere: no such folder"),
        (["score", "nowhere"], "no such file"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str, cli: Cli) -> None:
    done = cli(*arguments)
    assert done.returncode == 2 and complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("pattern", "title"),
    [
        ("runs/mine/stages/*", "mine"), ("runs/mine/stages/*/checkpoint", "mine"),
        ("ckpt/stage-*", "ckpt"), ("/a/b*/c", "a"), ("stage-*", Path.cwd().name),
    ],
)  # fmt: skip
def test_a_method_is_called_what_its_folder_is(pattern: str, title: str) -> None:
    from cpt_bench.run.request import title_of_stages

    assert title_of_stages(pattern) == title


def test_other_checkpoints_are_another_evaluation(
    finished: Path, tiny_model: Path, cli: Cli, tmp_path: Path
) -> None:
    asked = ("eval", "--suite", TINY, "--base", tiny_model, "--out", "e", "--limit", 1)
    done = cli(*asked, "--stages", finished / "stages/*")
    assert done.returncode == 0, done.stderr
    for t in (1, 2, 3):
        shutil.copytree(tiny_model, tmp_path / f"others/{t}")
    done = cli(*asked, "--stages", "others/*")
    assert done.returncode == 2 and "e: holds another run: its given is" in done.stderr
