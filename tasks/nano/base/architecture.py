"""The nano policy: a Qwen2.5-VL of 1.8 million weights, its tokenizer and its processor."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from cpt_bench.models.processor import Qwen2_5_VLProcessor
from cpt_bench.tasks.nano import questions as q
from cpt_bench.tasks.nano import world

PATCH, MERGE = 8, 2  # 64x64 pixels -> 8x8 patches -> 4x4 image tokens, one a cell
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PLAIN = [
    "user",
    "assistant",
    "system",
    "answer",
    "directly",
    "think",
    "first",
    "look",
    "dark",
    "clear",
    "unanswerable",
    "yes",
    "no",
    "none",
    "what",
    "which",
    "is",
    "are",
    "there",
    "the",
    "of",
    "in",
    "image",
    "slide",
    "sign",
    "say",
    "how",
    "many",
    "things",
    "thing",
    "where",
    "all",
    "describe",
    "at",
    "left",
    "right",
    "above",
    "below",
    "linked",
    "to",
    "perimeter",
    "area",
    "rectangle",
    "square",
    "triangle",
    "lesion",
    "stain",
    "color",
    "shape",
    "texture",
    "letter",
    "digit",
    "after",
    "plus",
    "minus",
    "times",
    "twice",
    "does",
    "contain",
    "not",
    "present",
    "a",
    "black",
    "gray",
    "teal",
    "brown",
]


def vocabulary() -> list[str]:
    """Every word of the nano world, each of which becomes one token."""
    groups = (
        ("\n", "?", "."), PLAIN, world.SHAPES, world.COLORS, world.SIZES, world.LETTERS,
        world.TEXTURES, world.STAINS, world.NAMES, q.OPTIONS, q.PLACES, q.FACTS, q.RELATIONS,
        q.ROWS, [str(n) for n in range(100)],
    )  # fmt: skip
    return list(dict.fromkeys(word for group in groups for word in group))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE like Qwen's: any text can be written, the world's words are one token."""
    tokenizer = Tokenizer(models.BPE())
    # Words first (b3 is one), then bytes with a space before each: a word has the same spelling
    # in every position.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[\p{L}\p{N}]+| ?[^\s\p{L}\p{N}]+|\s"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    # Twice each word, alphabetically: merges, and with them the ids, do not depend on chance.
    tokenizer.train_from_iterator([w for w in sorted(vocabulary()) for _ in range(2)], trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, rstrip=True) for t in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> Qwen2_5_VLProcessor:
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=1,
        size={"shortest_edge": world.SIDE**2, "longest_edge": world.SIDE**2},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    tokenizer = build_tokenizer()
    return Qwen2_5_VLProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    *,
    width: int = 160,
    layers: int = 4,
    heads: int = 5,
    vision_width: int = 128,
    vision_depth: int = 2,
) -> Any:
    """A freshly initialised policy (1.8 M weights with the default sizes, float32)."""
    torch.manual_seed(seed)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 7) // 8 * 8,
            "hidden_size": width,
            "intermediate_size": 384,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            # Rotary frequencies for sequences of fifty tokens: with the usual 1e6 the column axis
            # would turn by a millionth of a radian per step, too little to distinguish columns.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "mrope_section": [4, 6, 6],
            },
            "initializer_range": 0.07,  # the usual 0.02 trains far more slowly at this width
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": vision_depth,
            "hidden_size": vision_width,
            "intermediate_size": 2 * vision_width,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 1,
            "window_size": world.SIDE,
            "out_hidden_size": width,
            "fullatt_block_indexes": list(range(vision_depth)),
            "initializer_range": 0.07,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
        initializer_range=0.07,
    )
    config._attn_implementation = "eager"
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids("<|im_end|>")
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    return model
