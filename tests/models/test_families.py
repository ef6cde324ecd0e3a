"""Every family of models that docs/models.md lists: evaluated, trained and compared, in two layers with random weights."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from safetensors.numpy import save_file

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine, written
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.divergence import divergence
from cpt_bench.models.checkpoint import load_model, load_processor
from cpt_bench.models.families import layers_to_shard, open_processor
from cpt_bench.models.families.pictures import full_size, limit_pixels, restore_size
from cpt_bench.sources import load_split
from cpt_bench.stage.prompts import keep_prompt_files
from cpt_bench.suite import Suite, load_suite
from cpt_bench.trainer import Stage
from cpt_bench.trainers.methods import LoRA
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT
from tests.support import places
from tests.support.commands import Cli
from tests.support.families import TEXT
from tests.support.picture_families import PICTURES, maker, without_torchvision
from tests.support.stages import SUP, TINY, chained, make_stage

WORDS = load_suite(places.WORDS)
SMALL_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
REWARDED: dict[str, Any] = {
    "learning_rate": 1e-3, "max_steps": 1, "prompts_per_step": 2, "rollouts": 4, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return maker(tmp_path_factory.mktemp("families"))


def asked(suite: Suite) -> list[Request]:
    """Two questions of a task, and one of the probe, which has no picture."""
    first, probe = suite.card(suite.sequence[-1]), suite.card(suite.general[0])
    samples = [*load_split(first, "test")[:2], *load_split(probe, "test")[:1]]
    return [Request(s.id, suite.protocol.prompt(s.question), s.images) for s in samples]


@pytest.mark.parametrize("family", [*TEXT, *PICTURES])
def test_a_family_is_evaluated_and_trained_by_every_kind_of_trainer(
    family: str, models: Callable[[str], Path], tmp_path: Path
) -> None:
    """One row of the table in docs/models.md: eval, sft, KL, rft with its self-check, LoRA, replay."""
    suite = WORDS if family in TEXT else TINY
    base, task = models(family), suite.sequence[-1]
    engine, requests = TransformersEngine(base, device="cpu"), asked(suite)
    alone = [engine.generate([request], 8)[0] for request in requests]
    assert engine.generate(requests, 8) == alone  # padding changes nothing
    there = {type(module).__name__ for module in engine.model.modules()}
    assert {*layers_to_shard(engine.model)} & there == {*layers_to_shard(engine.model)} != set()

    rows: list[dict[str, Any]] = []
    taught = make_stage(task, base, tmp_path / "sft", rows, suite)
    SFT(SFT.Config(**SUP)).train(taught)
    assert rows[-1]["loss"] > 0
    after = opens_alike(base, taught)
    replied = [r._replace(prefix=a.text) for r, a in zip(requests, alone, strict=True)]
    assert all(row["kl"] > 0 for row in divergence(engine, after, replied))
    assert all(row["kl"] == 0 for row in divergence(engine, engine, replied))

    rows = []
    rewarded = make_stage(task, base, tmp_path / "rft", rows, suite)
    RFT(RFT.Config(**REWARDED)).train(rewarded)
    assert rows[0]["self_check"] < 1e-4
    opens_alike(base, rewarded)

    learner = Learner(Learner.Config(**SUP, replay=2))
    stages, _ = chained([learner, learner], base, tmp_path, suite=suite)
    assert len(stages[-1].memory.samples()) == 4  # two of each task
    opens_alike(base, stages[-1])


class Learner(LoRA):
    """Adapters and replay in one."""


def opens_alike(base: Path, stage: Stage) -> TransformersEngine:
    """A stage's checkpoint differs from its start in weights alone, as the next engine needs it."""
    assert keep_prompt_files(base, stage.output, "it") == []
    return TransformersEngine(stage.output, device="cpu")


def test_a_whole_run_of_a_text_model_is_verified(
    cli: Cli, models: Callable[[str], Path], tmp_path: Path
) -> None:
    """A model that pads with the token that ends a reply, from row 0 to a verified entry."""
    settings = [x for key in ("learning_rate=1e-3", "max_steps=1", "device=cpu") for x in ("--set", key)]  # fmt: skip
    run = tmp_path / "run"
    done = cli(
        "run", "--suite", places.WORDS, "--base", models("SmolLM2"), "--trainer", "sft", *settings,
        "--no-share", "--out", run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "replaced" not in done.stderr + done.stdout
    assert json.loads((run / "metrics.json").read_text())["KL_new"]["value"] > 0
    entry = [
        "--name", "Text", "--author", "A", "--notes", "n", "--division", "open",
        "--suite", places.WORDS, "--code", "https://example.org/x", "--out", tmp_path / "board",
    ]  # fmt: skip
    packed = cli("submit", run, *entry)
    assert packed.returncode == 0, packed.stderr
    verified = cli("verify", "--suite", places.WORDS, tmp_path / "board")
    assert verified.returncode == 0, verified.stderr + verified.stdout


def test_a_picture_for_a_text_model_is_one_line(models: Callable[[str], Path]) -> None:
    engine = TransformersEngine(models("Llama"), device="cpu")
    with pytest.raises(CptBenchError, match="reads text alone, and the question has a picture"):
        engine.generate([Request("q", "what?", [SMALL_PNG])], 4)


def test_tokens_of_a_reply_are_counted_to_its_end() -> None:
    assert written([5, 6, 2, 2, 2], [2], 2) == 3  # it pads with the token that ends a reply
    assert written([5, 6, 7], [2], 2) == 3  # cut by the limit
    assert written([2, 2], [2], 2) == 1
    assert written([5, 2, 0, 0], [2], 0) == 2


def test_a_chat_begins_once(models: Callable[[str], Path]) -> None:
    """Llama's template and tokenizer both put the token that begins a text."""
    engine = TransformersEngine(models("Llama"), device="cpu")
    begin = engine.processor.tokenizer.bos_token_id
    row = engine.encode(asked(WORDS)[:1])["input_ids"][0].tolist()
    assert row.count(begin) == 1 and row[0] == begin


def test_limits_on_pixels_have_the_family_s_own_unit(models: Callable[[str], Path]) -> None:
    """Pixels for the Qwen-VL models; a longest edge in whole tiles for Idefics3 and SmolVLM."""
    for family in ("Qwen2.5-VL", "Qwen2-VL", "Qwen3-VL"):
        processor = load_processor(models(family))
        limit_pixels(processor, 4096, 8192)
        size = processor.image_processor.size
        assert (size["shortest_edge"], size["longest_edge"]) == (4096, 8192)
    for family in ("Idefics3", "SmolVLM"):  # tiles of 28 x 28
        processor = load_processor(models(family))
        before = full_size(processor)
        limit_pixels(processor, None, 100 * 100)
        assert processor.image_processor.size["longest_edge"] == 84
        restore_size(processor, before)
        assert processor.image_processor.size["longest_edge"] == 56
        with pytest.raises(CptBenchError, match="less than one tile of 28 x 28"):
            limit_pixels(processor, None, 700)
        with pytest.raises(CptBenchError, match="min_pixels=4096 cannot be applied"):
            limit_pixels(processor, 4096, None)


@pytest.mark.parametrize("family", ["Gemma 3", "LLaVA-OneVision", "InternVL", "Qwen3"])
def test_limits_on_pixels_are_refused_where_they_mean_nothing(
    family: str, models: Callable[[str], Path]
) -> None:
    processor = load_processor(models(family))
    with pytest.raises(CptBenchError, match="max_pixels=4096 cannot be applied"):
        limit_pixels(processor, None, 4096)
    limit_pixels(processor, None, None)


@pytest.mark.skipif(not without_torchvision(), reason="stock processors have their part for videos")
def test_settings_for_videos_survive_a_processor_without_them(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    """What a checkpoint says of videos is in those made of it: with torchvision it is asked for."""
    copy = Path(shutil.copytree(models("Qwen3-VL"), tmp_path / "copy"))
    (copy / "video_preprocessor_config.json").write_text('{"size": {"longest_edge": 7}}')
    load_processor(copy).save_pretrained(tmp_path / "saved")
    kept = json.loads((tmp_path / "saved/video_preprocessor_config.json").read_text())
    assert kept == {"size": {"longest_edge": 7}}


def test_an_unknown_kind_of_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "perceptron9"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")  # the rest is there
    with pytest.raises(CptBenchError, match="knows no model that writes text by model_type"):
        open_processor(tmp_path)
    with pytest.raises(CptBenchError, match="knows no model that writes text by model_type"):
        load_model(tmp_path, attention="eager")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CptBenchError, match="names no model_type"):
        open_processor(tmp_path)


def test_no_chat_template_is_one_line(models: Callable[[str], Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(models("SmolLM2"), tmp_path / "copy"))
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(CptBenchError, match=r"no chat template.*-Instruct"):
        load_processor(copy)
