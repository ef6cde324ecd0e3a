"""Qwen2.5-VL's processor for images and text, with or without torchvision.

The ``Qwen2_5_VLProcessor`` of transformers requires a video processor, which exists only where
torchvision is installed. A benchmark of images needs none. Where torchvision is absent,
:func:`install` replaces it with an image-only class of the same name. Checkpoints that one of them
saved can be loaded with the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpt_bench.models.usable import hide_unusable_torchvision

hide_unusable_torchvision()

# isort: split
from transformers import AutoProcessor, Qwen2_5_VLConfig  # noqa: E402
from transformers.models.qwen2_5_vl import processing_qwen2_5_vl as stock  # noqa: E402
from transformers.processing_utils import ProcessorMixin  # noqa: E402
from transformers.utils import is_torchvision_available  # noqa: E402

from cpt_bench.files import write_json  # noqa: E402

IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"

VIDEO_SETTINGS = "video_preprocessor_config.json"


def video_settings(images: Any) -> dict[str, Any]:
    """The settings of a video processor that treats frames as ``images`` treats pictures.

    No video is ever shown. But where torchvision is installed, transformers (and with it a vLLM
    server) does not load a Qwen2.5-VL without these settings.
    """
    same = ("image_mean", "image_std", "merge_size", "patch_size", "temporal_patch_size")
    return {
        "video_processor_type": "Qwen2VLVideoProcessor",
        **{name: getattr(images, name) for name in same},
        "size": dict(images.size),
    }


class Qwen2_5_VLProcessor(stock.Qwen2_5_VLProcessor):  # type: ignore[misc] # noqa: N801 - the name is saved in configs
    """Image processor and tokenizer, without the video processor.

    transformers reads which parts a processor has from the signature of ``__init__``, so it is
    enough to leave the video processor out of it.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.video_token_id = tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Save the parts, and the settings of a video processor, which transformers asks for."""
        saved = super().save_pretrained(save_directory, **kwargs)
        write_json(Path(save_directory) / VIDEO_SETTINGS, video_settings(self.image_processor))
        return saved


def install() -> None:
    """Make ``AutoProcessor`` find the image-only class, unless torchvision is installed."""
    if is_torchvision_available() or stock.Qwen2_5_VLProcessor is Qwen2_5_VLProcessor:
        return
    import transformers

    stock.Qwen2_5_VLProcessor = Qwen2_5_VLProcessor
    transformers.Qwen2_5_VLProcessor = Qwen2_5_VLProcessor
    AutoProcessor.register(Qwen2_5_VLConfig, Qwen2_5_VLProcessor, exist_ok=True)
