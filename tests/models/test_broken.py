"""A checkpoint that cannot be opened: the real reason, and nothing is deleted that is not ours."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import broken, load_model, load_processor
from tests.support.commands import Cli
from tests.support.places import TINY

SHARD = "model-00002-of-00002.safetensors"


def without(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.unlink()

    return change


def half(folder: Path) -> None:
    first = SHARD.replace("2-of", "1-of")
    (folder / "model.safetensors").rename(folder / first)
    index = {"metadata": {}, "weight_map": {"a": first, "b": SHARD}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shard": (half, f"{SHARD} is missing, which model.safetensors.index.json names"),
    "the tokenizer": (without("token*"), "the tokenizer is missing (tokenizer.json, tokenizer_config.json)"),
    "the weights": (without("*.safetensors"), "*.safetensors are missing"),
    "the settings": (without("config.json"), "config.json is missing"),
    "the chat template": (without("chat_template*"), "has no chat template"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_real_reason_is_given(name: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "mine"))
    change, reason = CASES[name]
    change(folder)
    with pytest.raises(CptBenchError) as caught:
        load_processor(folder)
        load_model(folder, device="cpu", attention="eager")
    text = str(caught.value)
    assert text.startswith(f"{folder}: ") and reason in text and "\n" not in text
    assert "Delete" not in text, "it is the user's"
    assert folder.is_dir()


def test_a_reason_is_not_cut_off(tmp_path: Path, tiny_model: Path) -> None:
    assert "the end" in str(broken(tiny_model, "why " * 200 + "the end"))


def test_what_to_do_depends_on_who_wrote_it(tmp_path: Path) -> None:
    """Only a run's own checkpoint is made again by running the same command again."""
    ours = tmp_path / "run/stages/1-science/checkpoint"
    cached = tmp_path / "hub/models--Org--Name/snapshots" / ("0" * 40)
    for folder in (ours, cached):
        folder.mkdir(parents=True)
    (tmp_path / "run/run.json").write_text("{}")
    assert broken(ours, "x").todo.startswith("Delete it and run the same command again")
    assert broken(cached, "x").todo.startswith(
        "Remove it from the cache (hf cache rm model/Org/Name)"
    )
    assert broken(tmp_path / "mine", "x").todo.startswith("Give a whole checkpoint")


def test_one_model_s_row_stands_alone(cli: Cli, tiny_model: Path) -> None:
    done = cli("eval", tiny_model, "--suite", TINY, "--limit", "2", "--out", "row")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^base ", done.stdout, re.M)
    assert not re.search(r"^\d (science|lowvision|counting)\b", done.stdout, re.M)
    assert "needs" not in done.stdout, "no metric that takes a stage"
