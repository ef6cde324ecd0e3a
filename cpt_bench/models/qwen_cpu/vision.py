"""Qwen2.5-VL's vision tower and image processor for a CPU: the same numbers, up to rounding.

transformers attends to one picture after the other, computes the positions of its patches again for
each batch, embeds patches by a convolution whose kernel is the patch, and prepares pictures one by
one. For small pictures that is much of the time. The names of classes and the saved files stay.
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

from cpt_bench.models.qwen_cpu import kernels


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
        if not kernels.fits(hidden_states) or not bool((lengths == length).all()):
            return super().forward(
                hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs
            )
        width = hidden_states.shape[1] // self.num_heads
        parts = self.qkv(hidden_states).view(-1, length, 3, self.num_heads, width).unbind(2)
        cos, sin = (table.view(-1, 1, length, width) for table in position_embeddings)
        query = kernels.rotated_heads(parts[0], cos, sin, self.scaling)
        keys, values = kernels.rotated_heads(parts[1], cos, sin), parts[2].transpose(1, 2)
        weights = torch.softmax(query @ keys.transpose(2, 3), dim=-1)
        return self.proj((weights @ values).transpose(1, 2).reshape(len(hidden_states), -1))


class VisionTower(stock.Qwen2_5_VisionTransformerPretrainedModel):  # type: ignore[misc]
    """The tower; positions of patches are computed once for all batches of the same sizes."""

    def forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        if hidden_states.device.type == "cpu":
            grids = tuple(map(tuple, grid_thw.tolist()))
            config = self.config
            kwargs |= _places(grids, self.spatial_merge_size, config.window_size, config.patch_size)
        return super().forward(hidden_states, grid_thw, **kwargs)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # type: ignore[untyped-decorator] # the cached may serve training
def _places(grids: tuple[Any, ...], merge: int, window: int, patch: int) -> dict[str, Any]:
    """What transformers computes from the grids of pictures, as arguments of its forward pass."""
    grid_thw = torch.tensor(grids)
    index, windows = get_vision_window_index(grid_thw, merge, window, patch)
    return {
        "position_ids": get_vision_position_ids(grid_thw, merge),
        "cu_seqlens": get_vision_cu_seqlens(grid_thw),
        "window_index": index,
        "cu_window_seqlens": windows,
    }


SWAPS = {
    stock.Qwen2_5_VisionPatchEmbed: PatchEmbedding,
    stock.Qwen2_5_VLVisionAttention: VisionAttention,
    stock.Qwen2_5_VisionTransformerPretrainedModel: VisionTower,
}
"""Classes of transformers' tower, and their replacements."""


class Qwen2VLImageProcessorPil(stock_images.Qwen2VLImageProcessorPil):  # type: ignore[misc]
    """transformers' class (its name is saved in configs), quicker for pictures of one size."""

    def alike(self, pictures: list[Any]) -> dict[str, np.ndarray] | None:
        """Prepare RGB pictures that have one size and keep it; None for any other pictures.

        Returns:
            ``pixel_values`` (patches, features) float32 and ``image_grid_thw`` (pictures, 3).
        """
        usual = self.do_convert_rgb and self.do_resize and self.do_rescale and self.do_normalize
        width, height = pictures[0].size
        if not usual or any(picture.size != (width, height) for picture in pictures):
            return None
        if not _unchanged(height, width, self.size, self.patch_size * self.merge_size):
            return None
        stacked = np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)
        return self._together(
            stacked, self.rescale_factor, self.image_mean, self.image_std, self.patch_size,
            self.merge_size, self.temporal_patch_size,
        )  # fmt: skip

    def _preprocess(
        self, images: list[np.ndarray], size: Any, return_tensors: Any, **settings: Any
    ) -> Any:
        patch, merge = settings["patch_size"], settings["merge_size"]
        _, height, width = images[0].shape
        alike = all(image.shape == images[0].shape and image.dtype == np.uint8 for image in images)
        scaled = settings["do_rescale"] and settings["do_normalize"]
        if not (alike and scaled and _unchanged(height, width, size, patch * merge)):
            return super()._preprocess(images, size=size, return_tensors=return_tensors, **settings)
        data = self._together(
            np.stack(images), settings["rescale_factor"], settings["image_mean"],
            settings["image_std"], patch, merge, settings["temporal_patch_size"],
        )  # fmt: skip
        return stock_images.BatchFeature(data=data, tensor_type=return_tensors)

    def _together(
        self,
        pixels: np.ndarray,
        factor: float,
        mean: Any,
        std: Any,
        patch: int,
        merge: int,
        times: int,
    ) -> dict[str, np.ndarray]:
        """Pixels (pictures, channels, height, width) of 0 to 255 as patches."""
        count, channels, height, width = pixels.shape
        # A channel has 256 shades: the arithmetic of each is done once, by transformers.
        every = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, None], (channels, 1, 256))
        shades = self.normalize(self.rescale(every, factor), mean, std).astype(np.float32)
        rows, columns = height // patch, width // patch
        blocks = (rows // merge, merge, patch, columns // merge, merge, patch)
        # To (picture, block row, block column, row, column, channel, time, height, width).
        placed = pixels.reshape(count, channels, *blocks).transpose(0, 2, 5, 3, 6, 1, 4, 7)
        of_channel = [shades[c, 0].take(placed[:, :, :, :, :, c]) for c in range(channels)]
        patches = np.stack(of_channel, axis=5)[:, :, :, :, :, :, None]
        if times > 1:
            patches = patches.repeat(times, axis=6)
        return {
            "pixel_values": patches.reshape(count * rows * columns, -1),
            "image_grid_thw": np.array([[1, rows, columns]] * count, dtype=np.int64),
        }


def _unchanged(height: int, width: int, size: Any, factor: int) -> bool:
    """Whether pictures of this size are used as they are, neither shrunk nor enlarged."""
    limits = {"min_pixels": size.shortest_edge, "max_pixels": size.longest_edge}
    fitting: tuple[int, int] = stock_images.smart_resize(height, width, factor=factor, **limits)
    return fitting == (height, width)


def prepare_together(processor: Any) -> Any:
    """Make ``processor`` prepare pictures of one size together, if it is of this kind."""
    images = getattr(processor, "image_processor", None)
    if type(images) is stock_images.Qwen2VLImageProcessorPil:
        images.__class__ = Qwen2VLImageProcessorPil
    return processor
