"""The weights that ``plan`` counts from a config.json, against the counts that the models are published with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.advice.plan import Asked, plan
from cpt_bench.models.families.weights import Architecture
from cpt_bench.suite import open_suite
from tests.support.commands import LIGHT, Cli
from tests.support.places import WORDS

CPT7 = open_suite("cpt7")
QWEN3 = {
    "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
SMOLLM2 = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN_VL_3B = {
    "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008,
    "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
    "vocab_size": 151936, "tie_word_embeddings": True,
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "patch_size": 14,
        "out_hidden_size": 2048, "spatial_merge_size": 2, "temporal_patch_size": 2,
    },
}  # fmt: skip
QWEN3_VL = {
    "model_type": "qwen3_vl", "tie_word_embeddings": True,
    "text_config": {key: value for key, value in QWEN3.items() if key != "model_type"},
    "vision_config": {
        "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "out_hidden_size": 2560, "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
}  # fmt: skip
GEMMA3 = {
    "model_type": "gemma3", "mm_tokens_per_image": 256,
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
    },
    "vision_config": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "image_size": 896, "patch_size": 14, "vision_use_head": False,
    },
}  # fmt: skip
EXPERTS = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "num_experts": 128,
    "num_experts_per_tok": 8, "tie_word_embeddings": False, "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (QWEN3, 4_022_468_096),  # Qwen/Qwen3-4B
        (SMOLLM2, 134_515_008),  # HuggingFaceTB/SmolLM2-135M-Instruct
        (QWEN_VL_3B, 3_754_622_976),  # Qwen/Qwen2.5-VL-3B-Instruct
    ],
)
def test_plain_models_are_counted_by_formulas(config: dict[str, Any], published: int) -> None:
    assert Architecture.of(config).parameters == published


@pytest.mark.parametrize(
    ("config", "published", "tokens"),
    # Tokens of a picture of 1024 x 1024 pixels: squares of 32 x 32; always 256; none.
    [
        (QWEN3_VL, 4_437_815_808, 1024),  # Qwen/Qwen3-VL-4B-Instruct
        (GEMMA3, 4_300_079_472, 256),  # google/gemma-3-4b-it
        (EXPERTS, 30_532_122_624, 0),  # Qwen/Qwen3-30B-A3B
    ],
)
def test_other_models_are_laid_out(config: dict[str, Any], published: int, tokens: int) -> None:
    pytest.importorskip("torch")
    found = Architecture.of(config)
    assert found.parameters == published
    assert found.image_tokens(1024 * 1024) == tokens


def test_a_token_passes_through_eight_of_128_experts() -> None:
    pytest.importorskip("torch")
    found = Architecture.of(EXPERTS)
    assert found.active == 3_353_032_704  # the A3B in its name
    assert found.forward(10, 0) == 2 * 10 * 3_353_032_704


def test_the_formula_and_the_layout_agree() -> None:
    """Also on what adapters are put on, apart from a Qwen2.5-VL's merger, which the formula leaves out."""
    pytest.importorskip("torch")
    from cpt_bench.models.families import weights

    for config in (QWEN3, SMOLLM2, QWEN_VL_3B):
        laid = weights._laid_out(config, str(config["model_type"]))
        counted = Architecture.of(config)
        assert (laid.language, laid.vision) == (counted.language, counted.vision)
        if not counted.vision:
            assert laid.adapted == counted.adapted


QWEN_VL_72B = {
    **QWEN_VL_3B, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 152064,
    "tie_word_embeddings": False,
}  # fmt: skip
ONE = ["--launch", "torchrun --nproc_per_node 1"]


@pytest.mark.parametrize(
    ("config", "trainer", "gpu", "gpus", "recipe", "options"),
    [
        (QWEN_VL_3B, "sft", "a100-80", 8, "sft", ["--launch", "torchrun --nproc_per_node 8"]),
        (QWEN_VL_3B, "sft", "a100-80", 1, "sft-1gpu", ["--recipe", "cpt7/sft-1gpu", *ONE]),
        (QWEN_VL_3B, "rft", "a100-80", 1, "rft-lora", ["--recipe", "cpt7/rft-lora"]),
        (QWEN_VL_3B, "rft", "h200", 1, "rft-1gpu", ["--recipe", "cpt7/rft-1gpu", *ONE]),
        (None, "sft", "a100-80", 1, "sft-lora", ["--recipe", "cpt7/sft-lora"]),
        (None, "sft", "h200", 1, "sft-1gpu", ["--recipe", "cpt7/sft-1gpu", *ONE]),
        (None, "rft", "h200", 1, "rft-lora", ["--recipe", "cpt7/rft-lora"]),
        (None, "replay", "a100-80", 8, "replay", ["--launch", "torchrun --nproc_per_node 8"]),
    ],
)
def test_a_recipe_is_chosen_by_the_size_of_the_base(
    config: dict[str, Any] | None, trainer: str, gpu: str, gpus: int, recipe: str,
    options: list[str], tmp_path: Path,
) -> None:  # fmt: skip
    """The suite's own where it fits these GPUs, else all weights on one, else adapters."""
    base = None
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        base = str(tmp_path)
    made = plan(CPT7, Asked(trainer, gpu=gpu, gpus=gpus, base=base))
    assert (made["recipe"], made["options"]) == (f"cpt7/{recipe}", options)
    assert made["fits"] and made["fits_on"] is None


def test_a_model_that_fits_nowhere_here_is_told_from_how_many_gpus_on_it_would(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_VL_72B))
    words = ["plan", "--suite", "cpt7", "--base", str(tmp_path), "--trainer"]
    done = cli(*words, "sft")
    assert "DOES NOT FIT; it would on 16 of them" in done.stdout, done.stdout
    assert "run it with  --launch 'torchrun --nproc_per_node 8'" in done.stdout
    alone = plan(CPT7, Asked("sft", gpus=1, base=str(tmp_path), recipe="cpt7/sft-lora"))
    assert not alone["fits"] and alone["fits_on"] is None, "adapters are not split"


def test_a_text_model_is_planned_without_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    ask = ["plan", "--suite", str(WORDS), "--trainer", "rft", "--base", str(tmp_path), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *ask], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 4_022_468_096


def test_a_config_of_no_model_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    done = cli("plan", "--suite", WORDS, "--trainer", "sft", "--base", tmp_path)
    assert done.returncode == 2
    assert "describes no model that can be counted (no 'hidden_size')" in " ".join(
        done.stderr.split()
    )
