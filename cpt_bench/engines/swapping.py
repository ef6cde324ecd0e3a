"""Swaps another checkpoint of the same kind into a loaded engine.

Only weights are replaced. Everything else that an engine read when it opened (settings, tokenizer,
chat template) must be equivalent; otherwise a new engine is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest, digest_json, parsed, read_json
from cpt_bench.models.checkpoint import adapter_base, broken
from cpt_bench.models.files import ADAPTER

BESIDE = ("*.json", "*.jinja", "*.txt", "*.model")
"""Files that an engine may read in addition to the weights."""

INDEX = ".safetensors.index.json"

READ = (
    "*config.json", "tokenizer*.json", "*tokens*.json", "vocab*", "merges.txt",
    "*.jinja", "chat_template.json", "*.model",
)  # fmt: skip
"""Files that engines do read; trainers write their own logs and states as JSON, too."""

NO_MATTER: dict[str, tuple[str, ...]] = {
    "config.json": ("_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype"),
    "generation_config.json": ("transformers_version", "_from_model_config", "use_cache"),
    "tokenizer_config.json": (
        "is_local", "local_files_only", "name_or_path", "padding", "padding_side", "max_length",
        "pad_to_multiple_of", "pad_token_type_id", "truncation", "truncation_side",
        "truncation_strategy", "stride",
    ),
    "tokenizer.json": ("padding", "truncation"),
    "processor_config.json": ("video_processor",),
}  # fmt: skip
"""Keys that change no reply, by file: where a model was loaded from, how a tokenizer was last
called, what is done with videos, and the dtype, of which the effective value is compared
(:func:`dtype_of`)."""

REPEATED = "model_specific_special_tokens"
"""Where transformers repeats the names of Gemma's and InternVL's tokens when it saves a tokenizer
once more; they stand at the top of the file, too."""

VIDEO = "video_preprocessor_config.json"
"""No suite shows a video: a processor writes these settings where torchvision is installed."""

DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""safetensors' names of floating-point dtypes to torch's."""


def frame(folder: Path) -> dict[str, str]:
    """File name to a digest of its meaning, for all files that engines read except the weights."""
    files = {f for pattern in READ for f in folder.glob(pattern) if f.name != VIDEO}
    found = {file.name: meaning(file) for file in sorted(files)}
    return {**found, "dtype": dtype_of(folder)} if "config.json" in found else found


def meaning(file: Path) -> str:
    """The digest of a file; for JSON, only of the parts that can change a reply."""
    if file.suffix != ".json":
        return digest(file)
    try:
        value = parsed(file.read_text(encoding="utf-8"))
    except ValueError:
        return digest(file)
    kept = _without(value, NO_MATTER.get(file.name, ()))
    if isinstance(kept, dict) and isinstance(named := kept.pop(REPEATED, None), dict):
        kept = {**named, **kept}
    return digest_json(kept)


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    """A settings file without ``keys``, also in its nested parts (``text_config``)."""
    if not isinstance(value, dict):
        return value
    return {
        k: _without(v, keys) if k.endswith("_config") else v
        for k, v in value.items()
        if k not in keys
    }


def dtype_of(folder: Path) -> str:
    """The dtype that transformers takes for ``dtype="auto"``: the config's, else the weights'.

    Raises:
        CptBenchError: There is no config, or neither it nor a tensor has one.
    """
    config = read_json(folder / "config.json")
    named = config.get("dtype") or config.get("torch_dtype")
    if isinstance(named, str):
        return named.removeprefix("torch.")
    from safetensors import SafetensorError, safe_open

    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    kind = tensors.get_slice(name).get_dtype()
                    if kind in DTYPES:
                        return DTYPES[kind]
    except (OSError, SafetensorError) as error:
        raise broken(folder, error) from error
    raise CptBenchError("the weights have no floating-point dtype", where=folder)


def frame_digest(folder: Path) -> str:
    """SHA-256 of all files except the weights, byte for byte; for an adapter, also its base's."""
    base = adapter_base(folder)
    below = {"base": frame_digest(Path(base))} if base and Path(base).is_dir() else {}
    files = {file for pattern in BESIDE for file in folder.glob(pattern)}
    known = {file.name: digest(file) for file in sorted(files) if not file.name.endswith(INDEX)}
    return digest_json({**known, **below})


def difference(held: dict[str, str], new: dict[str, str]) -> str | None:
    """Why a checkpoint cannot be swapped in for the loaded one; None if it can.

    Args:
        held: The :func:`frame` of the loaded checkpoint.
        new: The one of the new checkpoint.
    """
    if ADAPTER in held or ADAPTER in new:
        return "an adapter is merged when it is loaded"
    other = sorted(n for n in held.keys() | new.keys() if held.get(n) != new.get(n))
    return f"its {other[0]} differs from that of the loaded checkpoint" if other else None


def require_same(held: dict[str, str], folder: Path) -> None:
    """Refuse to swap in a checkpoint that differs in more than its weights.

    Raises:
        CptBenchError: It does; the message names the difference.
    """
    why = difference(held, frame(folder))
    if why is not None:
        raise CptBenchError(
            f"cannot be swapped in: {why}", where=folder, todo="Open a new engine for it"
        )


def require_whole(weights: str) -> None:
    """Refuse to answer after a failed swap.

    Raises:
        CptBenchError: ``weights`` is empty, as it is while a swap is under way.
    """
    if not weights:
        raise CptBenchError(
            "the engine holds no checkpoint: its last swap failed", todo="Open a new engine"
        )


def tensors_of(folder: Path) -> Iterator[tuple[str, Any]]:
    """Name and tensor of everything in a checkpoint's files, one after the other."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                yield name, tensors.get_tensor(name)


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name to shape, read from the headers only."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [*tensors.keys()]
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    return shapes


def put_in(model: Any, folder: Path) -> None:
    """Replace a transformers model's weights by a checkpoint's, and verify that it has them.

    Raises:
        CptBenchError: A file is broken, lacks a tensor, has one too many or of another shape, or
            the model does not hold what the files do. Some weights may have been replaced.
    """
    import torch
    from safetensors import SafetensorError

    try:
        held = _places(model, shapes_of(folder), folder)
        with torch.no_grad():
            for name, tensor in tensors_of(folder):
                held[name].copy_(tensor)
        # Compare after all are loaded: two names of one tensor (a tied head) may disagree.
        for name, tensor in tensors_of(folder):
            if not torch.equal(held[name], tensor.to(held[name])):
                raise broken(folder, f"{name} is not in the model as it is in the file")
    except (OSError, ValueError, SafetensorError) as error:
        raise broken(folder, error) from error


def _places(model: Any, shapes: dict[str, tuple[int, ...]], folder: Path) -> dict[str, Any]:
    """The model's tensor for each name in the files; each tensor must occur, with its shape."""
    state = model.state_dict()
    held = state if shapes.keys() <= state.keys() else _as_saved(model, state)
    if unknown := sorted(shapes.keys() - held.keys()):
        raise broken(folder, f"the model has no {unknown[0]}")
    # A tied head is another name for the embedding, and is not in the files.
    reached = {held[name].data_ptr() for name in shapes}
    absent = sorted(name for name in held if held[name].data_ptr() not in reached)
    if absent:
        raise broken(folder, f"{len(absent)} weights are missing, among them {absent[0]}")
    for name, shape in shapes.items():
        if tuple(held[name].shape) != shape:
            raise broken(folder, f"{name} is {[*shape]} there and {[*held[name].shape]} here")
    return held


def _as_saved(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The model's tensors under the names that transformers writes to files."""
    from transformers.core_model_loading import revert_weight_conversion

    places = {tensor.data_ptr() for tensor in state.values()}
    saved = revert_weight_conversion(model, dict(state))
    # Tensors that are joined or split when saved are copies: writing to them has no effect.
    return {name: tensor for name, tensor in saved.items() if tensor.data_ptr() in places}
