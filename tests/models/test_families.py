"""Every family of models that docs/models.md lists: evaluated, trained and compared, in two layers with random weights."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine, written
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.divergence import divergence
from cpt_bench.models.checkpoint import load_processor
from cpt_bench.models.families.pictures import limit_pixels
from cpt_bench.sources import load_split
from cpt_bench.stage.prompts import keep_prompt_files
from cpt_bench.suite import load_suite
from cpt_bench.trainer import Stage
from cpt_bench.trainers.methods import LoRA, Replay
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT
from tests.support.commands import Cli
from tests.support.families import TEXT, make
from tests.support.places import WORDS
from tests.support.stages import SUP, chained, make_stage

SUITE = load_suite(WORDS)
SMALL_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
REWARDED: dict[str, Any] = {
    "learning_rate": 1e-3, "max_steps": 1, "prompts_per_step": 2, "rollouts": 4, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("families"), dict[str, Path]()

    def of(family: str) -> Path:
        if family not in made:
            made[family] = make(family, root / family.replace(" ", "-"))
        return made[family]

    return of


def asked(n: int) -> list[Request]:
    samples = load_split(SUITE.card("sums"), "test")[:n]
    return [Request(s.id, SUITE.protocol.prompt(s.question), s.images) for s in samples]


@pytest.mark.parametrize("family", TEXT)
def test_a_text_model_is_evaluated_and_trained_by_every_kind_of_trainer(
    family: str, models: Callable[[str], Path], tmp_path: Path
) -> None:
    base = models(family)
    engine = TransformersEngine(base, device="cpu")
    requests = asked(3)
    alone = [engine.generate([request], 12)[0] for request in requests]
    assert engine.generate(requests, 12) == alone  # padding changes nothing

    rows: list[dict[str, Any]] = []
    taught = make_stage("sums", base, tmp_path / "sft", rows, suite=SUITE)
    SFT(SFT.Config(**SUP)).train(taught)
    assert rows[-1]["loss"] > 0
    opens_alike(base, taught)
    base_replies = [r._replace(prefix=a.text) for r, a in zip(requests, alone, strict=True)]
    moved = divergence(engine, TransformersEngine(taught.output, device="cpu"), base_replies)
    assert all(row["kl"] > 0 for row in moved)

    rows = []
    rewarded = make_stage("sums", base, tmp_path / "rft", rows, suite=SUITE)
    RFT(RFT.Config(**REWARDED)).train(rewarded)
    assert rows[0]["self_check"] < 1e-4
    opens_alike(base, rewarded)

    adapted = make_stage("sums", base, tmp_path / "lora", suite=SUITE)
    LoRA(LoRA.Config(**SUP)).train(adapted)
    opens_alike(base, adapted)
    stages, _ = chained(
        [Replay(Replay.Config(**SUP, replay=2)) for _ in range(2)], base, tmp_path, suite=SUITE
    )
    assert len(stages[-1].memory.samples()) == 4  # two of each task
    opens_alike(base, stages[-1])


def opens_alike(base: Path, stage: Stage) -> None:
    """A stage's checkpoint differs from its start in weights alone, as the next engine needs it."""
    assert keep_prompt_files(base, stage.output, "it") == []
    again = TransformersEngine(stage.output, device="cpu")
    assert len(again.generate(asked(1), 4)) == 1


def test_a_whole_run_of_a_text_model_is_verified(
    cli: Cli, models: Callable[[str], Path], tmp_path: Path
) -> None:
    """A model that pads with the token that ends a reply, from row 0 to a verified entry."""
    settings = [x for key in ("learning_rate=1e-3", "max_steps=1", "device=cpu") for x in ("--set", key)]  # fmt: skip
    run = tmp_path / "run"
    done = cli(
        "run", "--suite", WORDS, "--base", models("SmolLM2"), "--trainer", "sft", *settings,
        "--no-share", "--out", run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "replaced" not in done.stderr + done.stdout
    assert json.loads((run / "metrics.json").read_text())["KL_new"]["value"] > 0
    entry = [
        "--name", "Text", "--author", "A", "--notes", "n", "--division", "open",
        "--suite", WORDS, "--code", "https://example.org/x", "--out", tmp_path / "board",
    ]  # fmt: skip
    packed = cli("submit", run, *entry)
    assert packed.returncode == 0, packed.stderr
    verified = cli("verify", "--suite", WORDS, tmp_path / "board")
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
    row = engine.encode(asked(1))["input_ids"][0].tolist()
    assert row.count(begin) == 1 and row[0] == begin


def test_limits_on_pixels_are_refused_where_they_mean_nothing(
    models: Callable[[str], Path],
) -> None:
    processor = load_processor(models("Qwen3"))
    with pytest.raises(CptBenchError, match="max_pixels=4096 cannot be kept: the model reads no"):
        limit_pixels(processor, None, 4096)


def test_an_unknown_kind_of_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "perceptron9"}')
    with pytest.raises(CptBenchError, match="knows no model that writes text by model_type"):
        load_processor(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CptBenchError, match="names no model_type"):
        load_processor(tmp_path)


def test_no_chat_template_is_one_line(models: Callable[[str], Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(models("SmolLM2"), tmp_path / "copy"))
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(CptBenchError, match=r"no chat template.*-Instruct"):
        load_processor(copy)
