"""The processor of :mod:`cpt_bench.models.processor`, quicker for plain chats and batches."""

from __future__ import annotations

from typing import Any

from cpt_bench.models import processor
from cpt_bench.models.qwen_cpu import encoding


class Qwen2_5_VLProcessor(processor.Qwen2_5_VLProcessor):  # noqa: N801 - the name is saved in configs
    """The same results; what :mod:`cpt_bench.models.qwen_cpu.encoding` covers comes from there."""

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """A plain batch of questions is encoded as one; everything else goes to transformers."""
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
        """A plain chat is rendered once and remembered; everything else goes to transformers."""
        template = chat_template or self.chat_template
        generation = kwargs.get("add_generation_prompt", False)
        if conversation and not any(v for k, v in kwargs.items() if k != "add_generation_prompt"):
            several = isinstance(conversation[0], list)
            chats = [encoding.turns(c) for c in (conversation if several else [conversation])]
            if None not in chats:
                texts = [encoding.rendered(self, template, chat, generation) for chat in chats]
                return texts if several else texts[0]
        return super().apply_chat_template(conversation, chat_template=chat_template, **kwargs)

    def create_mm_token_type_ids(self, input_ids: list[Any]) -> list[list[int]]:
        """1 for each token of a picture, 2 for one of a video, 0 for words."""
        kinds = {self.image_token_id: 1, self.video_token_id: 2}
        return [
            [kinds.get(token, 0) for token in (row if isinstance(row, list) else row.tolist())]
            for row in input_ids
        ]
