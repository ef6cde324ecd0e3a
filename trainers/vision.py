"""Rollouts of one prompt share its picture: pass it through the vision tower once.

A batch of 8 prompts with 8 rollouts each holds every picture eight times. Features and gradients
are the same arithmetic as without sharing, summed in another order.
"""

from __future__ import annotations

from typing import Any

import torch


def share_pictures(model: Any) -> None:
    """Make ``model``'s vision tower compute equal pictures of a batch once (CPU only).

    Acts on models with a ``model.visual`` of Qwen's kind, called with ``pixel_values`` of shape
    (patches, features) and ``grid_thw`` of shape (images, 3); batches of different picture sizes
    pass unchanged.
    """
    tower = model.model.visual
    compute = tower.forward

    def forward(pixel_values: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        images = len(grid_thw)
        if pixel_values.device.type != "cpu" or not bool((grid_thw == grid_thw[0]).all()):
            return compute(pixel_values, grid_thw=grid_thw, **kwargs)
        patches = pixel_values.reshape(images, -1, pixel_values.shape[-1])
        known: dict[bytes, int] = {}
        which = [known.setdefault(p.numpy().tobytes(), len(known)) for p in patches.detach()]
        if len(known) == images:
            return compute(pixel_values, grid_thw=grid_thw, **kwargs)
        inverse = torch.tensor(which)
        first = torch.tensor([which.index(i) for i in range(len(known))])
        out = compute(patches[first].flatten(0, 1), grid_thw=grid_thw[first], **kwargs)
        for name in ("last_hidden_state", "pooler_output"):
            each = getattr(out, name).unflatten(0, (len(known), -1))
            setattr(out, name, each[inverse].flatten(0, 1))
        return out

    tower.forward = forward
