"""Qwen2.5-VL with random weights, by the facts of a real configuration; no hub is asked.

The words come from nano's tokenizer: a few thousand of the vocabulary's ids. What a pass costs does
not depend on which ids are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cpt_bench.files import read_json

REAL: Final[Mapping[str, Any]] = read_json(
    Path(__file__).resolve().parents[2] / "tasks/cpt7/base_config.json"
)
"""What the suite cpt7 ships of Qwen2.5-VL-7B's ``config.json``."""
TINY: Final[Mapping[str, Any]] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 4096, "tie_word_embeddings": False,
    "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "patch_size": 14,
                      "spatial_merge_size": 2, "temporal_patch_size": 2},
}  # fmt: skip


def processor(facts: Mapping[str, Any]) -> Any:
    """Nano's tokenizer, and pictures cut as the model of ``facts`` wants them."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from cpt_bench.models.processor import Qwen2_5_VLProcessor
    from cpt_bench.tasks.nano.base.architecture import CHAT_TEMPLATE, build_tokenizer

    vision = facts["vision_config"]
    images = Qwen2VLImageProcessorPil(
        patch_size=vision["patch_size"],
        merge_size=vision["spatial_merge_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        # Qwen2.5-VL's own limits on pictures.
        size={"shortest_edge": 3136, "longest_edge": 12845056},
    )
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 32768
    return Qwen2_5_VLProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)


def configuration(facts: Mapping[str, Any], tokenizer: Any, layers: int | None = None) -> Any:
    """The ``Qwen2_5_VLConfig`` of ``facts``, with ``layers`` instead of all its layers."""
    from transformers import Qwen2_5_VLConfig

    ids = tokenizer.convert_tokens_to_ids
    width = facts["hidden_size"] // facts["num_attention_heads"]
    text = {key: value for key, value in facts.items() if key != "vision_config"}
    depth, hidden = facts["vision_config"]["depth"], facts["vision_config"]["hidden_size"]
    half = width // 2
    rows = half * 3 // 8
    return Qwen2_5_VLConfig(
        text_config={
            **text,
            "num_hidden_layers": layers or facts["num_hidden_layers"],
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                # 16, 24, 24 for the 7B's heads of 128.
                "mrope_section": [half - 2 * rows, rows, rows],
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            **facts["vision_config"],
            "num_heads": max(1, hidden // 80),
            "window_size": 112,
            "out_hidden_size": facts["hidden_size"],
            # Every eighth block of the tower attends to the whole picture.
            "fullatt_block_indexes": [i for i in range(depth) if i % 8 == 7] or [0],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=facts["tie_word_embeddings"],
    )


def write(folder: Path, facts: Mapping[str, Any], device: str, layers: int | None = None) -> int:
    """Write such a checkpoint, its weights drawn on ``device``; returns how many it has."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    parts = processor(facts)
    config = configuration(facts, parts.tokenizer, layers)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    # Halves of the bytes: the checkpoint that is published is in bfloat16 as well.
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        # The likeliest word is always one that the tokenizer can write: replies are compared.
        model.lm_head.weight[len(parts.tokenizer) :] = 0
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    model.save_pretrained(folder)
    parts.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())
