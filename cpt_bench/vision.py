"""Qwen2.5-VL's vision tower and image processor, arranged for a CPU: the same numbers, to rounding.

Stock transformers attends to one picture after the other, embeds patches by a convolution whose
kernel is the patch, and prepares a picture again each time it is shown: much of the time that small
pictures take. Models and processors keep their class's name and files.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as stock
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as stock_images

REMEMBERED, SMALL = 512, 2**18
"""How many pictures are kept as patches, and the most bytes of one; 64x64 ones take 50 kB."""


class PatchEmbedding(stock.Qwen2_5_VisionPatchEmbed):  # type: ignore[misc]
    """Patches (n, features) to (n, width) as the matrix product that the convolution is."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        if patches.device.type != "cpu":
            return super().forward(patches)
        weight = self.proj.weight
        return nn.functional.linear(patches.to(weight.dtype), weight.flatten(1))


class VisionAttention(stock.Qwen2_5_VLVisionAttention):  # type: ignore[misc]
    """Attention within each picture, all pictures of a size at once."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        lengths = cu_seqlens.diff()
        length = int(lengths[0])
        if hidden_states.device.type != "cpu" or not bool((lengths == length).all()):
            return super().forward(
                hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs
            )
        parts = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        query, key = stock.apply_rotary_pos_emb_vision(*parts[:2], *position_embeddings)
        query, key, value = (
            part.unflatten(0, (-1, length)).transpose(1, 2) for part in (query, key, parts[2])
        )
        weights = torch.softmax(query @ key.transpose(2, 3) * self.scaling, dim=-1)
        seen = (weights @ value).transpose(1, 2)
        return self.proj(seen.reshape(len(hidden_states), -1))


def arrange(model: Any) -> Any:
    """Let ``model``'s vision tower compute as above; another kind of model stays as it is."""
    swaps = {
        stock.Qwen2_5_VisionPatchEmbed: PatchEmbedding,
        stock.Qwen2_5_VLVisionAttention: VisionAttention,
    }
    for module in model.modules():
        # The class alone changes: weights, names and copies of the model stay what they are.
        module.__class__ = swaps.get(type(module), type(module))
    return model


class Qwen2VLImageProcessorPil(stock_images.Qwen2VLImageProcessorPil):  # type: ignore[misc]
    """The stock one (its name is saved in configs), which remembers the pictures it has seen."""

    def _preprocess(self, images: list[np.ndarray], return_tensors: Any, **settings: Any) -> Any:
        prepared = [self._prepared(image, settings) for image in images]
        data = {
            "pixel_values": np.concatenate([patches for patches, _ in prepared]),
            "image_grid_thw": np.concatenate([grid for _, grid in prepared]),
        }
        return stock_images.BatchFeature(data=data, tensor_type=return_tensors)

    def resize(
        self, image: np.ndarray, size: Any, resample: Any, factor: int, **settings: Any
    ) -> Any:
        height, width = image.shape[-2:]
        limits = {"min_pixels": size.shortest_edge, "max_pixels": size.longest_edge}
        if (height, width) == stock_images.smart_resize(height, width, factor=factor, **limits):
            return image
        return super().resize(image, size=size, resample=resample, factor=factor, **settings)

    def _prepared(self, image: np.ndarray, settings: dict[str, Any]) -> Any:
        key = (image.tobytes(), image.shape, repr(settings))
        if key not in _seen:
            alone = super()._preprocess([image], return_tensors=None, **settings)
            patches, grid = alone["pixel_values"], alone["image_grid_thw"]
            if patches.nbytes > SMALL:  # photographs would fill the memory
                return patches, grid
            _seen[key] = (patches, grid)
            while len(_seen) > REMEMBERED:
                _seen.popitem(last=False)
        _seen.move_to_end(key)
        return _seen[key]


_seen: OrderedDict[Any, Any] = OrderedDict()  # not in the processor: its fields are saved


def remember(processor: Any) -> Any:
    """Let ``processor`` prepare a picture once; another kind of processor passes unchanged."""
    images = getattr(processor, "image_processor", None)
    if type(images) is stock_images.Qwen2VLImageProcessorPil:
        images.__class__ = Qwen2VLImageProcessorPil
    return processor
