"""Qwen2.5-VL's vision tower and image processor, arranged for a CPU: the same numbers, to rounding.

Stock transformers attends to one picture after the other, counts out again and again where its
patches stand, embeds them by a convolution whose kernel is the patch, and prepares pictures one by
one: much of the time that small ones take. Models and processors keep their class's name and files.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as stock
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as stock_images
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)


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


class VisionTower(stock.Qwen2_5_VisionTransformerPretrainedModel):  # type: ignore[misc]
    """The tower, which counts out where patches stand once for each kind of batch."""

    def forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        if hidden_states.device.type == "cpu":
            grids = tuple(map(tuple, grid_thw.tolist()))
            config = self.config
            kwargs |= _places(grids, self.spatial_merge_size, config.window_size, config.patch_size)
        return super().forward(hidden_states, grid_thw, **kwargs)


@lru_cache(maxsize=64)
def _places(grids: tuple[Any, ...], merge: int, window: int, patch: int) -> dict[str, Any]:
    """What transformers would count out, picture by picture, for pictures of these grids."""
    grid_thw = torch.tensor(grids)
    index, windows = get_vision_window_index(grid_thw, merge, window, patch)
    return {
        "position_ids": get_vision_position_ids(grid_thw, merge),
        "cu_seqlens": get_vision_cu_seqlens(grid_thw),
        "window_index": index,
        "cu_window_seqlens": windows,
    }


def arrange(model: Any) -> Any:
    """Let ``model``'s vision tower compute as above; another kind of model stays as it is."""
    swaps = {
        stock.Qwen2_5_VisionPatchEmbed: PatchEmbedding,
        stock.Qwen2_5_VLVisionAttention: VisionAttention,
        stock.Qwen2_5_VisionTransformerPretrainedModel: VisionTower,
    }
    for module in model.modules():
        # The class alone changes: weights, names and copies of the model stay what they are.
        module.__class__ = swaps.get(type(module), type(module))
    return model


class Qwen2VLImageProcessorPil(stock_images.Qwen2VLImageProcessorPil):  # type: ignore[misc]
    """The stock one (its name is saved in configs), for whole batches of pictures of one size."""

    def _preprocess(
        self, images: list[np.ndarray], size: Any, return_tensors: Any, **settings: Any
    ) -> Any:
        patch, merge = settings["patch_size"], settings["merge_size"]
        channels, height, width = images[0].shape
        limits = {"min_pixels": size.shortest_edge, "max_pixels": size.longest_edge}
        fitting = stock_images.smart_resize(height, width, factor=patch * merge, **limits)
        alike = {(image.shape, image.dtype.name) for image in images}
        scaled = settings["do_rescale"] and settings["do_normalize"]
        if alike != {((channels, *fitting), "uint8")} or not scaled:
            return super()._preprocess(images, size=size, return_tensors=return_tensors, **settings)
        # A channel has 256 shades: the arithmetic of each is done once, by transformers.
        every = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, None], (channels, 1, 256))
        shades = self.rescale(every, settings["rescale_factor"])
        shades = self.normalize(shades, settings["image_mean"], settings["image_std"])
        offsets = 256 * np.arange(channels, dtype=np.int16)[:, None, None]
        pixels = shades.astype(np.float32).ravel().take(np.stack(images) + offsets)
        rows, columns = height // patch, width // patch
        blocks = (rows // merge, merge, patch, columns // merge, merge, patch)
        # To (picture, block row, block column, row, column, channel, time, height, width).
        patches = pixels.reshape(len(images), channels, *blocks).transpose(0, 2, 5, 3, 6, 1, 4, 7)
        times = (*patches.shape[:6], settings["temporal_patch_size"], patch, patch)
        data = {
            "pixel_values": np.broadcast_to(patches[:, :, :, :, :, :, None], times).reshape(
                len(images) * rows * columns, -1
            ),
            "image_grid_thw": np.array([[1, rows, columns]] * len(images), dtype=np.int64),
        }
        return stock_images.BatchFeature(data=data, tensor_type=return_tensors)


def prepare_together(processor: Any) -> Any:
    """Let ``processor`` prepare pictures of a size together; of another kind it stays as it is."""
    images = getattr(processor, "image_processor", None)
    if type(images) is stock_images.Qwen2VLImageProcessorPil:
        images.__class__ = Qwen2VLImageProcessorPil
    return processor
