"""Checkpoints in Hugging Face format: their digests, how they are loaded, what is broken in one."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest, digest_json, read_json
from cpt_bench.hub.names import HubName, cached_as, parse
from cpt_bench.hub.shards import settings_of, shards_of
from cpt_bench.models import base as bases
from cpt_bench.models import families, quick
from cpt_bench.models.files import (
    ADAPTER,
    GENERATION,
    NO_TOKENIZER,
    has_tokenizer,
    lacking,
    require_weights,
    tensors_of,
)

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def adapter_base(folder: Path) -> str | None:
    """The folder of the model that an adapter in ``folder`` belongs to; None for a whole model.

    A model on the hub is taken at the revision that the adapter's settings name, and fetched.

    Raises:
        CptBenchError: The adapter's settings do not name its model, or it cannot be found.
    """
    file = folder / ADAPTER
    if not file.is_file():
        return None
    settings = read_json(file)
    named = settings.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise CptBenchError(
            "the adapter names no base model", where=file, todo="Set base_model_name_or_path"
        )
    inside = folder / named
    if inside.is_dir() or Path(named).is_dir():
        return str(inside if inside.is_dir() else named)
    hub = parse(named)
    if hub is None:
        raise CptBenchError(
            f"the adapter's base model {named!r} is no longer there",
            where=file,
            todo="Set base_model_name_or_path to its folder, or to org/name on the hub",
        )
    return str(bases.local_folder(HubName(hub.id, hub.revision or settings.get("revision"))))


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files alone: every evaluation result is stored under it.

    The digest of an adapter also covers its settings, which scale it, and its base's weights.

    Raises:
        CptBenchError: The folder holds no safetensors.
    """
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    if not files:
        raise CptBenchError("no *.safetensors here", where=folder, todo="Give a checkpoint folder")
    parts = {file.name: digest(file) for file in files}
    base = adapter_base(folder)
    if base is not None:
        parts[ADAPTER] = digest(folder / ADAPTER)
        parts["base"] = weights_digest(Path(base))
    return digest_json(parts)


def load_processor(folder: Path) -> Any:
    """The processor (image processor, tokenizer, chat template) saved in ``folder``.

    That of a text-only model is its tokenizer in the same form
    (:class:`cpt_bench.models.families.text.TextProcessor`).
    """
    # Here, because it imports transformers, which is not needed to compute digests.
    from cpt_bench.models.processor import install

    install()
    base = adapter_base(folder)
    if base is not None and not (folder / "tokenizer_config.json").is_file():
        return load_processor(Path(base))
    if not has_tokenizer(folder):  # transformers makes an empty one
        raise broken(folder, NO_TOKENIZER)
    try:
        return quick.arrange_processor(families.open_processor(folder))
    except ImportError as error:
        raise _lacks(folder, error) from error
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise broken(folder, error) from error


def load_model(folder: Path, *, device: str = "auto", dtype: str = "auto", attention: str) -> Any:
    """The model saved in ``folder``, of whatever family; an adapter is merged into its base.

    Its own settings for generation are left out (:func:`families.forget_sampling`).

    Args:
        folder: A checkpoint, or a hub id.
        device: ``auto`` takes a GPU where there is one.
        dtype: ``auto`` takes the checkpoint's own.
        attention: ``eager`` (fastest for short sequences on CPU), ``sdpa``, ``flash_attention_2``.

    Raises:
        CptBenchError: The checkpoint is incomplete, truncated or of an unknown architecture.
    """
    import torch

    base = adapter_base(folder)
    if base is None:
        model = _load_whole(folder, dtype, attention)
    else:
        model = _merged(_load_whole(Path(base), dtype, attention), folder)
    _require_finite(model, folder)
    families.forget_sampling(model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return quick.arrange(model.to(device))


def _load_whole(folder: Path, dtype: str, attention: str) -> Any:
    from safetensors import SafetensorError
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if (folder / GENERATION).is_file():
        settings_of(folder / GENERATION)  # transformers goes on without one that it cannot read
    shards_of(folder)
    try:
        if (folder / "config.json").is_file():
            require_weights(folder, AUTO_QUANTIZATION_CONFIG_MAPPING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, info = families.auto_class(folder).from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to name one: its own error does not
            )
    except ImportError as error:
        raise _lacks(folder, error) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise broken(folder, error) from error
    if wrong := _misfits(model, info):
        raise broken(folder, wrong)
    return model


def _misfits(model: Any, info: dict[str, Any]) -> str:
    """In what files and settings do not fit together; empty where they do.

    transformers fills what is missing with random numbers, leaves out what is too much, and goes
    on.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    missing = set(info["missing_keys"])
    # A tied head is in the files under the name of the embeddings.
    filled = {id(tensor) for name, tensor in named.items() if name not in missing}
    absent = sorted(n for n in missing if n not in named or id(named[n]) not in filled)
    if absent:
        return f"{len(absent)} weights are missing, among them {absent[0]}"
    if other := sorted(info["mismatched_keys"]):
        name, there, here = other[0]
        return (
            f"{len(other)} weights have another shape than config.json says, among them "
            f"{name}: {[*there]} in the file, {[*here]} in the model"
        )
    known = {_anonymous(name) for name in named}
    more = sorted(name for name in info["unexpected_keys"] if _anonymous(name) in known)
    if more:
        return f"there are weights of layers that config.json does not have, such as {more[0]}"
    return ""


def _anonymous(name: str) -> str:
    """A weight's name without the number of its layer."""
    return re.sub(r"\d+", "#", name)


def _merged(whole: Any, folder: Path) -> Any:
    """``whole`` with the adapter in ``folder`` merged into it.

    Raises:
        CptBenchError: Some of the adapter's tensors have no place in the model, or some of its
            places have no tensor: PEFT leaves out the ones and the other at zero, without a word.
    """
    from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

    try:
        model = PeftModel.from_pretrained(whole, folder)
        tensors = load_peft_weights(str(folder), device="cpu")
        placed = set_peft_model_state_dict(model, tensors)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise broken(folder, error) from error
    prefix = getattr(model.base_model, "prefix", "lora_")
    empty = [name for name in placed.missing_keys if prefix in name]
    for names, what in (
        (placed.unexpected_keys, "of the adapter's {} tensors have no place in the model"),
        (empty, "places of the adapter have no tensor among its {}"),
    ):
        if names:
            raise CptBenchError(
                f"{len(names)} {what.format(len(tensors))}, among them {sorted(names)[0]}",
                where=folder,
                todo="Train or convert it for this base model: its keys are another model's",
            )
    return model.merge_and_unload()


def _require_finite(model: Any, folder: Path) -> None:
    """Refuse weights that are not numbers: such a model writes the same character for ever.

    Raises:
        CptBenchError: The line names one of them.
    """
    import torch

    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise CptBenchError(
                f"holds NaN or infinite weights ({name})",
                where=folder,
                todo="Its training diverged: give another checkpoint",
            )


def _lacks(folder: Path, error: ImportError) -> CptBenchError:
    """The error for a model of which transformers needs a package that is not installed."""
    reason = " ".join(str(error).split()).partition(". ")[0].partition(" in your environment")[0]
    return CptBenchError(
        f"transformers cannot open it here ({reason})",
        where=folder,
        todo="Install that package; which torchvision fits this torch, cptbench doctor knows",
    )


def count_parameters(folder: Path) -> int:
    """The number of weights of a checkpoint, from its headers alone.

    Raises:
        CptBenchError: A file is broken.
    """
    from safetensors import SafetensorError

    try:
        return sum(
            math.prod(tensor.shape)
            for file in folder.glob("*.safetensors")
            for tensor in tensors_of(file)
        )
    except (SafetensorError, OSError) as error:
        raise broken(folder, error) from error


def broken(folder: Path, error: object) -> CptBenchError:
    """The error to raise when a checkpoint cannot be loaded because of ``error``."""
    reason = lacking(folder) or " ".join(str(error).split())
    if (folder.parent.parent.parent / "run.json").is_file():  # a stage's, written by a run
        todo = "Delete it and run the same command again, or restore it"
    elif hub := cached_as(folder.absolute()):
        todo = f"Remove it from the cache (hf cache rm model/{hub.id}), and run the command again"
    else:
        todo = "Give a whole checkpoint: config.json, *.safetensors, tokenizer and processor"
    return CptBenchError(f"the checkpoint cannot be loaded ({reason})", where=folder, todo=todo)
