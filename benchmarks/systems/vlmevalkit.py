"""VLMEvalKit's Qwen2VLChat, with transformers, on a CPU; run by VLMEvalKit's own Python.

Its seconds are those of its ``generate`` over all questions, one after the other, as its loop
calls it; it has no batches. The tables that the loop writes every ten questions are left out.

The class is as it comes; four things around it are not, so that it runs here at all and sees the
same pictures:

* ``get_gpu_memory`` finds a GPU, which the constructor insists on;
* ``from_pretrained`` loads with ``eager`` or ``sdpa`` attention, whichever is quicker, instead of
  ``flash_attention_2``, which needs a GPU;
* inputs that it sends to ``cuda`` go to the CPU;
* ``process_vision_info`` is told the size of the model's patches (its argument; it takes 14 for
  granted and would scale the pictures for it).

It is given greedy decoding, by its own argument: its default draws from the likeliest token alone,
which gives the same replies and is no quicker. Pixel limits are not set: those of its registry
scale pictures up to a million pixels.
"""

from __future__ import annotations

import functools
import json
import os
from importlib.metadata import version
from typing import Any
from unittest import mock

import qwen_vl_utils
import torch
from transformers import BatchFeature, Qwen2_5_VLForConditionalGeneration
from vlmeval.vlm.qwen2_vl import Qwen2VLChat
from vlmeval.vlm.qwen2_vl import model as module

from benchmarks.systems import WARM_UP, Clock, Place, quickest, serve


def on_cpu(patch: int) -> None:
    """What it asks of a GPU goes to the CPU; pictures are cut into patches of ``patch`` pixels."""
    move = BatchFeature.to
    BatchFeature.to = lambda self, device: move(self, "cpu")
    qwen_vl_utils.process_vision_info = functools.partial(
        qwen_vl_utils.process_vision_info, image_patch_size=patch
    )


class VLMEvalKit:
    """The model class of VLMEvalKit, with the attention that is quicker."""

    def __init__(self, place: Place) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.place, self.folder = place, place.model
        config = json.loads((self.folder / "config.json").read_text())
        on_cpu(config["vision_config"]["patch_size"])
        attention, self.model = quickest(["eager", "sdpa"], self.load, self.warm_up)
        self.about = {name: version(name) for name in ("ms-vlmeval", "torch", "transformers")}
        self.about["attention"] = attention

    def load(self, attention: str) -> Qwen2VLChat:
        stock = Qwen2_5_VLForConditionalGeneration.from_pretrained

        def loaded(folder: str, **asked: Any) -> Any:
            return stock(folder, **{**asked, "attn_implementation": attention})

        with (
            mock.patch.object(module, "get_gpu_memory", return_value=[1]),
            mock.patch.object(Qwen2_5_VLForConditionalGeneration, "from_pretrained", loaded),
        ):
            return Qwen2VLChat(
                model_path=str(self.folder), max_new_tokens=self.place.new, do_sample=False,
                use_custom_prompt=False, use_vllm=False,
            )  # fmt: skip

    def warm_up(self, model: Qwen2VLChat) -> None:
        self.model = model
        self.answer(WARM_UP, 1)

    def answer(self, task: str, batch: int) -> dict[str, Any]:
        asked = [
            [{"type": "image", "value": file} for file in q["images"]]
            + [{"type": "text", "value": q["prompt"]}]
            for q in self.place.asked(task)
        ]
        clock = Clock()
        with clock.running():
            replies = [self.model.generate(message) for message in asked]
        return {**clock.said, "replies": [reply.strip() for reply in replies]}


if __name__ == "__main__":
    serve(VLMEvalKit)
