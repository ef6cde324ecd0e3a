"""Qwen2.5-VL's processor for images and text, with or without torchvision.

Stock ``Qwen2_5_VLProcessor`` insists on a video processor, which exists only with torchvision. A
benchmark of images needs none. :func:`install` puts an image-only class of the same name in its
place when torchvision is absent; checkpoints saved through it load in stock transformers and the
other way round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoProcessor, Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl import processing_qwen2_5_vl as stock
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available

from cpt_bench.files import write_json
from cpt_bench.models.qwen_cpu import encoding

IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"

VIDEO_SETTINGS = "video_preprocessor_config.json"


def video_settings(images: Any) -> dict[str, Any]:
    """The settings of a video processor that does with frames what ``images`` does with pictures.

    No video is ever shown. Where torchvision is, stock transformers (and with it a vLLM server)
    does not load a Qwen2.5-VL without them.
    """
    same = ("image_mean", "image_std", "merge_size", "patch_size", "temporal_patch_size")
    return {
        "video_processor_type": "Qwen2VLVideoProcessor",
        **{name: getattr(images, name) for name in same},
        "size": dict(images.size),
    }


class Qwen2_5_VLProcessor(stock.Qwen2_5_VLProcessor):  # type: ignore[misc] # noqa: N801 - the name is saved in configs
    """Image processor and tokenizer, without the video processor.

    transformers reads the parts a processor has from the signature of ``__init__``, so that
    leaving the video processor out of it is all that is needed.
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

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """The stock result; of a plain batch of questions sooner."""
        asked = dict(kwargs)
        padded = asked.pop("padding", None), asked.pop("return_tensors", None)
        side = asked.pop("padding_side", self.tokenizer.padding_side)
        special = asked.pop("add_special_tokens", True)
        if padded == (True, "pt") and not asked and text and isinstance(text, list):
            batch = encoding.batch(self, text, images, side, special)
            if batch is not None:
                return batch
        return super().__call__(images=images, text=text, **kwargs)

    def apply_chat_template(
        self, conversation: Any, chat_template: str | None = None, **kwargs: Any
    ) -> Any:
        """The stock result; a plain chat is rendered once."""
        template = chat_template or self.chat_template
        generation = kwargs.get("add_generation_prompt", False)
        if conversation and not any(v for k, v in kwargs.items() if k != "add_generation_prompt"):
            several = isinstance(conversation[0], list)
            chats = [encoding.turns(c) for c in (conversation if several else [conversation])]
            if None not in chats:
                texts = [encoding.rendered(self, template, chat, generation) for chat in chats]
                return texts if several else texts[0]
        return super().apply_chat_template(conversation, chat_template=chat_template, **kwargs)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Save the parts, and the settings of a video processor, which stock ones ask for."""
        saved = super().save_pretrained(save_directory, **kwargs)
        write_json(Path(save_directory) / VIDEO_SETTINGS, video_settings(self.image_processor))
        return saved

    def create_mm_token_type_ids(self, input_ids: list[Any]) -> list[list[int]]:
        """1 for each token of a picture, 2 of a video, 0 for words; the stock result, sooner."""
        kinds = {self.image_token_id: 1, self.video_token_id: 2}
        return [
            [kinds.get(token, 0) for token in (row if isinstance(row, list) else row.tolist())]
            for row in input_ids
        ]


def install() -> None:
    """Make ``AutoProcessor`` find the image-only class; does nothing where torchvision is."""
    if is_torchvision_available() or stock.Qwen2_5_VLProcessor is Qwen2_5_VLProcessor:
        return
    import transformers

    stock.Qwen2_5_VLProcessor = Qwen2_5_VLProcessor
    transformers.Qwen2_5_VLProcessor = Qwen2_5_VLProcessor
    AutoProcessor.register(Qwen2_5_VLConfig, Qwen2_5_VLProcessor, exist_ok=True)
