"""Checkpoints of nano's kind, and their replies by vLLM and by transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cpt_bench.suite import Suite

SMALL = {"eager": True, "max_model_len": 512}
"""Settings that open an engine in two seconds."""

Change = Callable[[dict[str, Any]], None]


def changed(base: Path, folder: Path, change: Change | None = None, seed: int = 0) -> Path:
    """A copy of ``base`` whose weights all differ, and beyond that as ``change`` has it."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    make = torch.Generator().manual_seed(seed)
    state = load_file(base / "model.safetensors")
    for name, tensor in state.items():
        state[name] = tensor * (1 + 0.08 * torch.randn(tensor.shape, generator=make))
    if change is not None:
        change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def model_of(base: Path, folder: Path, seed: int = 3, **sizes: Any) -> Path:
    """A model of the base's kind with random weights, whose language part has other ``sizes``."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    shutil.copytree(base, folder)
    config = Qwen2_5_VLConfig.from_pretrained(base)
    for name, value in sizes.items():
        setattr(config.text_config, name, value)
    config.text_config.layer_types = ["full_attention"] * config.text_config.num_hidden_layers
    config.vision_config.out_hidden_size = config.text_config.hidden_size
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # a trained model's are not zero
            parameter.data.normal_(std=0.02)
    model.save_pretrained(folder)
    return folder


PLACES = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
"""What stands around a picture and in its place, in the words of Qwen's tokenizers."""


def writing(base: Path, folder: Path, tokens: Sequence[str] = PLACES) -> Path:
    """A copy of ``base`` that begins a reply with each of ``tokens`` as often as with any other word.

    To the questions of the tiny suite's task counting.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from cpt_bench.engines import Request
    from cpt_bench.sources import load_split
    from tests.support.stages import TINY

    shutil.copytree(base, folder)
    plain = transformers(base)
    samples = load_split(TINY.card("counting"), "train")
    asked = [Request(s.id, TINY.protocol.prompt(s.question), s.images) for s in samples]
    with torch.no_grad():
        out = plain.model(**plain.encode(asked), output_hidden_states=True)
    likely = out.logits[:, -1].logsumexp(-1, keepdim=True)
    row = torch.linalg.lstsq(out.hidden_states[-1][:, -1], likely, driver="gelsd").solution[:, 0]
    state = load_file(base / "model.safetensors")
    head = next(t for name, t in state.items() if name.endswith("embed_tokens.weight")).clone()
    head[plain.processor.tokenizer.convert_tokens_to_ids([*tokens])] = row
    state["lm_head.weight"] = head
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    text = {**config["text_config"], "tie_word_embeddings": False}
    config |= {"tie_word_embeddings": False, "text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def replies(engine: Any, suite: Suite, samples: int = 12) -> dict[str, list[tuple[str, int]]]:
    """Replies and their lengths, to the first samples of each task and general benchmark."""
    from cpt_bench.evaluation.predictions import evaluate
    from cpt_bench.sources import load_split

    found = {}
    for name in (*suite.sequence, *suite.general):
        card = suite.card(name)
        rows = evaluate(engine, card, load_split(card, "test")[:samples], suite.protocol)
        found[name] = [(row["reply"], row["tokens"]) for row in rows]
    return found


def transformers(folder: Path) -> Any:
    from cpt_bench.engines.hf import TransformersEngine

    return TransformersEngine(folder, device="cpu")
