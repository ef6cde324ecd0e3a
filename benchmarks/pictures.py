"""Rows with pictures as a data set that stock TRL and lm-eval read."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, Image, List


def with_pictures(rows: list[dict[str, Any]]) -> Dataset:
    """``rows`` as a data set whose ``images`` are decoded to RGB pictures when they are read."""
    return Dataset.from_list(rows).cast_column("images", List(Image(mode="RGB")))
