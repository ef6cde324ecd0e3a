"""Checkpoints: folders in Hugging Face format, loaded with one clear line when they are broken."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files alone: what every evaluation result is keyed by.

    Raises:
        CptBenchError: The folder holds no safetensors.
    """
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    if not files:
        raise CptBenchError("no *.safetensors here", where=folder, todo="Give a checkpoint folder")
    from cpt_bench.files import digest_json

    return digest_json({file.name: digest(file) for file in files})


def load_processor(folder: Path) -> Any:
    """The processor (image processor, tokenizer, chat template) saved in ``folder``."""
    from transformers import AutoProcessor

    from cpt_bench.processor import install

    install()
    try:
        return AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise _broken(folder, error) from error


def load_model(folder: Path, *, device: str = "auto", dtype: str = "auto", attention: str) -> Any:
    """The vision-language model saved in ``folder``.

    Args:
        folder: A checkpoint, or a hub id.
        device: ``auto`` takes a GPU where there is one.
        dtype: ``auto`` takes the checkpoint's own.
        attention: ``eager`` (fastest for short sequences on CPU), ``sdpa``, ``flash_attention_2``.

    Raises:
        CptBenchError: The checkpoint is incomplete, truncated or of an unknown architecture.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, attn_implementation=attention, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _broken(folder, error) from error
    absent = set(info["missing_keys"]) - set(getattr(model, "_tied_weights_keys", None) or ())
    if absent:  # transformers fills them with random numbers and goes on
        raise _broken(folder, f"{len(absent)} weights are missing, among them {sorted(absent)[0]}")
    return model.to(device)


def _broken(folder: Path, error: object) -> CptBenchError:
    reason = " ".join(str(error).split())[:200]
    return CptBenchError(
        f"the checkpoint cannot be loaded ({reason})",
        where=folder,
        todo="Delete it and run the same command again, or restore it",
    )
