"""Processors of pictures and text without their part for videos, which needs torchvision.

Many processors of transformers insist on a video processor, and every one of those on torchvision.
No suite shows a video. Where torchvision is absent, :func:`install` replaces such a class with one
of the same name that has no part for videos. A checkpoint that it saves keeps the settings for
videos of the one that it was loaded from, so that it opens with torchvision too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import transformers
from transformers import AutoConfig, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available

from cpt_bench.files import read_json, write_json

VIDEO = "video_processor"
VIDEO_SETTINGS = "video_preprocessor_config.json"


class ImageOnly:
    """Mixed into a stock processor: all that it is, without a video processor."""

    video_settings: dict[str, Any] | None = None
    video_processor = SimpleNamespace(num_frames=None, fps=None)
    """What SmolVLM's chats ask for, whether there are videos or not."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that are loaded, saved and called."""
        return [part for part in super().get_attributes() if part != VIDEO]  # type: ignore[misc]

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A processor of its parts, which come in the order of the stock class's arguments."""
        settings = {key: value for key, value in processor_dict.items() if key != VIDEO}
        made = super().from_args_and_dict([*args, None], settings, **kwargs)  # type: ignore[misc]
        whole = made[0] if isinstance(made, tuple) else made
        whole.video_settings = processor_dict.get(VIDEO)
        return made

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Save the parts, and the settings for videos that came with them."""
        saved = super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        if self.video_settings is not None:
            write_json(Path(save_directory) / VIDEO_SETTINGS, self.video_settings)
        return saved


def install(kind: str) -> None:
    """Make ``AutoProcessor`` find an image-only class for models of this type, if it needs one."""
    name = PROCESSOR_MAPPING_NAMES.get(kind)
    stock = getattr(transformers, name, None) if isinstance(name, str) else None
    if stock is None or VIDEO not in stock.get_attributes():
        return
    module: Any = sys.modules[stock.__module__]
    if not getattr(module, "num2words", True):
        module.num2words = str  # SmolVLM counts the frames of a video with it
    if is_torchvision_available():
        return
    made = type(name, (ImageOnly, stock), {"__module__": stock.__module__})
    package = sys.modules[stock.__module__.rpartition(".")[0]]
    for place in (module, package, transformers):
        setattr(place, name, made)
    AutoProcessor.register(type(AutoConfig.for_model(kind)), made, exist_ok=True)


def keep_video_settings(processor: Any, folder: Path) -> None:
    """Let an image-only processor remember the settings for videos in ``folder``, if any."""
    if not isinstance(processor, ImageOnly) or processor.video_settings is not None:
        return
    file = folder / VIDEO_SETTINGS
    if file.is_file():
        processor.video_settings = read_json(file)
