"""A checkpoint's files: what they hold, and what is wrong with them, without opening a model.

The errors of transformers for a missing or an unsuitable file are often guesses about the network,
and some mistakes it does not notice at all: it takes integers for weights, and leaves out layers
that the settings do not mention.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.hub.shards import INDEX, settings_of, shards_of

ADAPTER = "adapter_config.json"
"""The file that makes a folder a PEFT adapter rather than a whole model."""
GENERATION = "generation_config.json"
NO_TOKENIZER = "the tokenizer is missing (tokenizer.json, tokenizer_config.json)"
POINTER = b"version https://git-lfs"
"""How a file begins that git has written in place of a large one."""
EIGHT_BITS = ("I8", "U8", "F8_E4M3", "F8_E5M2", "F4", "F8_E8M0")
"""safetensors' names of dtypes that only quantised weights have."""


def lacking(folder: Path) -> str:
    """What is wrong with the files of a checkpoint; empty where nothing is seen at a glance."""
    if (folder / ADAPTER).is_file():
        return ""
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    for shard in shards_of(folder):
        if not (folder / shard).is_file():
            return f"{shard} is missing, which {INDEX} names"
    weights = [file for file in folder.glob("*.safetensors") if file.is_file()]
    if not weights:
        return "*.safetensors are missing"
    for file in (*weights, *folder.glob("tokenizer*"), *folder.glob("*.json")):
        if file.is_file() and begins(file, POINTER):
            return f"{file.name} is a pointer of git LFS, in place of the file: run git lfs pull"
        if file.is_file() and file.suffix == ".json":
            try:
                read_json(file)
            except CptBenchError as error:
                return f"{file.name}: {error.what}"
    return "" if has_tokenizer(folder) else NO_TOKENIZER


def begins(file: Path, start: bytes) -> bool:
    """Whether a file begins so."""
    with file.open("rb") as stream:
        return stream.read(len(start)) == start


def has_tokenizer(folder: Path) -> bool:
    """Whether there are files of a tokenizer."""
    return any(any(folder.glob(pattern)) for pattern in ("tokenizer*", "vocab.*", "*.model"))


def require_weights(folder: Path, known: Collection[str]) -> None:
    """Refuse quantised weights that would be taken for plain numbers.

    Args:
        folder: The checkpoint.
        known: The methods of quantisation that transformers knows.

    Raises:
        CptBenchError: The weights have eight bits, and the settings do not say how to read them.
        SafetensorError, OSError: A file is broken.
    """
    method = (settings_of(folder / "config.json").get("quantization_config") or {}).get(
        "quant_method"
    )
    if method in known:
        return
    for file in sorted(file for file in folder.glob("*.safetensors") if file.is_file()):
        for name, dtype, _ in tensors_of(file):
            if dtype in EIGHT_BITS:
                how = f"by {method!r}, which transformers does not know" if method else ""
                raise CptBenchError(
                    f"its weights are quantised ({name} is {dtype}) {how}".strip()
                    + ("" if method else ", and config.json does not say how"),
                    where=folder,
                    todo="Give the model before it was quantised",
                )


class Tensor(NamedTuple):
    """What the header of a safetensors file says of a tensor."""

    name: str
    dtype: str
    """safetensors' name of it, such as ``BF16``."""
    shape: list[int]


def tensors_of(file: Path) -> list[Tensor]:
    """The tensors of a safetensors file, from its header alone.

    Raises:
        SafetensorError: It is not such a file.
        OSError: It cannot be read.
    """
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return [Tensor(n, part.get_dtype(), part.get_shape()) for n, part in parts.items()]
