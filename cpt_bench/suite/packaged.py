"""Base models that a Python package carries, as a suite declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from cpt_bench.suite.base import Declared
from cpt_bench.suite.prepared import root


class Packaged(Declared):
    """A base model in a package: nothing is fetched, and the package is installed by the user.

    Attributes:
        package: The distribution's name on the package index.
        version: Its version.
        file: The GGUF file in it, from where packages are installed.
        sha256: Of that file.
        dtype: What the rounded weights are written out as.
        weights: SHA-256 of the ``model.safetensors`` that is made of it.
    """

    package: str
    version: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    dtype: Literal["float32", "bfloat16"]
    weights: str | None = Field(pattern=r"^[0-9a-f]{64}$")


def place_of(base: Packaged) -> Path:
    """Where the checkpoint made of it is, whether or not it is there."""
    made = (base.weights or base.sha256)[:12]
    return root() / "models" / f"{base.package}-{base.version}-{base.dtype}-{made}"
