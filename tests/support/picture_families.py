"""Two-layer vision-language models with random weights, made by transformers; see :mod:`tests.support.families`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.families import SIZES, TEXT, save, tokenizer

TURN = ("<|im_start|>", "<|im_end|>")
QWEN_WORDS = (
    "<|endoftext|>", *TURN, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
WORDS = {key: value for key, value in SIZES.items() if key != "initializer_range"}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
NEWLINES = ("\n\n\n\n", "\n\n\n", "\n\n", "\n")
"""Tokens of Gemma's that vLLM asks for by name."""
EYE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def chat(
    image: str,
    start: str = "<|im_start|>{{ m['role'] }}\n",
    end: str = "<|im_end|>\n",
    head: str = "",
) -> str:
    """A chat template of turns with parts, a picture of which is ``image``."""
    parts = (
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}" + image + "{% else %}{{ p['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
    )
    opened = "{% set m = {'role': 'assistant'} %}" + start
    return (
        head + "{% for m in messages %}" + start + parts + end + "{% endfor %}"
        "{% if add_generation_prompt %}" + opened + "{% endif %}"
    )


def without_torchvision() -> bool:
    from transformers.utils import is_torchvision_available

    return not is_torchvision_available()


def build(
    kind: str, name: str, images: Any, words: Any, video: str | None = None, **more: Any
) -> Any:
    """A processor of its parts; where there is no torchvision, without the part for videos."""
    import transformers

    from cpt_bench.models.families import image_only
    from cpt_bench.models.processor import install

    install()
    image_only.install(kind)
    if without_torchvision():
        return getattr(transformers, name)(
            images,
            words,
            **({"video_processor": None} if video and kind != "qwen2_5_vl" else {}),
            **more,
        )
    parts = {} if video is None else {"video_processor": getattr(transformers, video)()}
    return getattr(transformers, name)(images, words, **parts, **more)


def squares(patch: int) -> Any:
    """The image processor of the Qwen-VL models, for pictures of 64 x 64 pixels and larger."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(
        patch_size=patch, merge_size=2, temporal_patch_size=2,
        size={"shortest_edge": 4 * patch**2, "longest_edge": 64 * patch**2},
    )  # fmt: skip


def qwen_words() -> Any:
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    return tokenizer(
        [*QWEN_WORDS], eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=chat(image)
    )


def qwen_vl(
    folder: Path,
    name: str,
    kind: str,
    processor: str,
    patch: int,
    video: str,
    eye: dict[str, Any],
    tied: bool,
    **text: Any,
) -> None:
    """A Qwen-VL of one of three generations."""
    import transformers

    words = qwen_words()
    ids = words.convert_tokens_to_ids
    config = getattr(transformers, f"{name}Config")(
        text_config={**WORDS, "vocab_size": len(words), "rope_parameters": MROPE, "pad_token_id": ids("<|endoftext|>"), "bos_token_id": None, "eos_token_id": ids("<|im_end|>"), **text},
        vision_config={"depth": 2, "num_heads": 4, "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2, **eye},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=tied,
    )  # fmt: skip
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    both = build(kind, processor, squares(patch), words, video, chat_template=words.chat_template)
    save(
        folder, model, both, eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
        pad_token_id=ids("<|endoftext|>"),
    )  # fmt: skip


def qwen25(folder: Path, tied: bool = False) -> None:
    eye = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "window_size": 56, "fullatt_block_indexes": [1]}  # fmt: skip
    qwen_vl(
        folder,
        "Qwen2_5_VL",
        "qwen2_5_vl",
        "Qwen2_5_VLProcessor",
        14,
        "Qwen2VLVideoProcessor",
        eye,
        tied,
    )


def qwen25_tied(folder: Path) -> None:
    qwen25(folder, True)


def qwen2(folder: Path) -> None:
    eye = {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    qwen_vl(
        folder, "Qwen2VL", "qwen2_vl", "Qwen2VLProcessor", 14, "Qwen2VLVideoProcessor", eye, False
    )


def qwen3(folder: Path) -> None:
    eye = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}  # fmt: skip
    qwen_vl(
        folder,
        "Qwen3VL",
        "qwen3_vl",
        "Qwen3VLProcessor",
        16,
        "Qwen3VLVideoProcessor",
        eye,
        True,
        head_dim=32,
    )


def gemma3(folder: Path) -> None:
    """Gemma 3: every picture has one size, and a token begins every text."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    special = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}  # fmt: skip
    start = "<start_of_turn>{{ m['role'] | replace('assistant', 'model') }}\n"
    template = chat("<start_of_image>", start, "<end_of_turn>\n", "{{ bos_token }}")
    words = tokenizer(
        ["<pad>", "<eos>", "<bos>", *NEWLINES, "<start_of_turn>", "<end_of_turn>", *special.values()],
        "<bos>", eos_token="<eos>", pad_token="<pad>", extra_special_tokens=special, chat_template=template,
    )  # fmt: skip
    ids = words.convert_tokens_to_ids
    config = Gemma3Config(
        text_config={**WORDS, "vocab_size": len(words), "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"], "pad_token_id": ids("<pad>"), "bos_token_id": ids("<bos>"), "eos_token_id": ids("<eos>")},
        vision_config={**EYE, "image_size": 56, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=4, image_token_index=ids("<image_soft_token>"),
        boi_token_index=ids("<start_of_image>"), eoi_token_index=ids("<end_of_image>"),
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    both = build(
        "gemma3", "Gemma3Processor", images, words, image_seq_length=4, chat_template=template
    )
    save(folder, Gemma3ForConditionalGeneration(config), both, eos_token_id=[ids("<eos>"), ids("<end_of_turn>")], pad_token_id=ids("<pad>"))  # fmt: skip


def llava_onevision(folder: Path) -> None:
    """LLaVA-OneVision: tiles that depend on a picture's shape, and the picture in small."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    template = chat("<image>\n")
    words = tokenizer(["<|endoftext|>", *TURN, "<image>", "<video>"], eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template)  # fmt: skip
    ids = words.convert_tokens_to_ids
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = LlavaOnevisionConfig(
        text_config={**WORDS, "model_type": "qwen2", "vocab_size": len(words), "bos_token_id": None, "eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>")},
        vision_config={**EYE, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14, "vision_use_head": False},
        image_token_index=ids("<image>"), video_token_index=ids("<video>"), image_grid_pinpoints=grid,
    )  # fmt: skip
    images = LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    both = build(
        "llava_onevision", "LlavaOnevisionProcessor", images, words, "LlavaOnevisionVideoProcessor",
        num_image_tokens=4, vision_feature_select_strategy="full", chat_template=template,
    )  # fmt: skip
    both.patch_size = 14
    save(folder, LlavaOnevisionForConditionalGeneration(config), both, eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"))  # fmt: skip


def smol_words(template: str) -> Any:
    rows = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    return tokenizer(
        ["<|endoftext|>", *TURN, "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows],
        eos_token="<end_of_utterance>", pad_token="<|endoftext|>", chat_template=template,
    )  # fmt: skip


def idefics3(
    folder: Path, kind: str = "idefics3", name: str = "Idefics3", video: str | None = None
) -> None:
    """Idefics3, and SmolVLM: tiles of a picture whose longest edge is given."""
    import importlib

    import transformers

    template = chat("<image>", "{{ m['role'] | capitalize }}: ", "<end_of_utterance>\n")
    words = smol_words(template)
    ids = words.convert_tokens_to_ids
    config = getattr(transformers, f"{name}Config")(
        text_config={**WORDS, "model_type": "llama", "vocab_size": len(words), "pad_token_id": ids("<|endoftext|>"), "bos_token_id": None, "eos_token_id": ids("<end_of_utterance>")},
        vision_config={**EYE, "image_size": 28, "patch_size": 14},
        image_token_id=ids("<image>"), scale_factor=2, pad_token_id=ids("<|endoftext|>"),
    )  # fmt: skip
    module = importlib.import_module(f"transformers.models.{kind}.image_processing_pil_{kind}")
    images = getattr(module, f"{name}ImageProcessorPil")(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
    )
    both = build(
        kind, f"{name}Processor", images, words, video, image_seq_len=1, chat_template=template
    )
    save(folder, getattr(transformers, f"{name}ForConditionalGeneration")(config), both, eos_token_id=ids("<end_of_utterance>"), pad_token_id=ids("<|endoftext|>"))  # fmt: skip


def smolvlm(folder: Path) -> None:
    idefics3(folder, "smolvlm", "SmolVLM", "SmolVLMVideoProcessor")


def internvl(folder: Path) -> None:
    """InternVL: tiles that depend on a picture's shape."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    special = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}  # fmt: skip
    template = chat("<IMG_CONTEXT>\n")
    words = tokenizer(
        ["<|endoftext|>", *TURN, *special.values()],
        eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=special, chat_template=template,
    )  # fmt: skip
    ids = words.convert_tokens_to_ids
    config = InternVLConfig(
        text_config={**WORDS, "model_type": "qwen2", "vocab_size": len(words), "bos_token_id": None, "eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>")},
        vision_config={**EYE, "image_size": [28, 28], "patch_size": [14, 14]},
        image_token_id=ids("<IMG_CONTEXT>"), image_seq_length=1, downsample_ratio=0.5,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4
    )
    both = build(
        "internvl",
        "InternVLProcessor",
        images,
        words,
        "InternVLVideoProcessor",
        image_seq_length=1,
        chat_template=template,
    )
    save(folder, InternVLForConditionalGeneration(config), both, eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"))  # fmt: skip


PICTURES: dict[str, Callable[[Path], None]] = {
    "Qwen2.5-VL": qwen25,
    "Qwen2.5-VL tied": qwen25_tied,
    "Qwen2-VL": qwen2,
    "Qwen3-VL": qwen3,
    "Gemma 3": gemma3,
    "LLaVA-OneVision": llava_onevision,
    "Idefics3": idefics3,
    "SmolVLM": smolvlm,
    "InternVL": internvl,
}
"""Models that read pictures and text."""


def make(family: str, folder: Path) -> Path:
    """The two-layer model of a family, in ``folder``; the same weights each time."""
    import torch

    torch.manual_seed(3)
    {**TEXT, **PICTURES}[family](folder)
    return folder


def maker(root: Path) -> Callable[[str], Path]:
    """A family's name to the folder of its model under ``root``, made when it is first asked for."""
    return cache(lambda family: make(family, root / family.replace(" ", "-")))
