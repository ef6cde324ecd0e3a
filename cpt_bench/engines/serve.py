"""``python -m cpt_bench.engines.serve CHECKPOINT``: ``transformers serve`` with complete replies.

Stock ``transformers serve`` cannot be used with a suite's checkpoints for four reasons: without
torchvision it cannot open the processors of many models; with it, it decodes pictures by
torchvision, whose JPEGs differ from Pillow's in rounding, and some builds of which decode none; it
applies the checkpoint's own penalties and beams; and for all Qwen models it removes
``<think>…</think>`` from every reply, which cannot be restored exactly, so that the reply cannot be
graded. Here the processor is the image-only one, pictures are decoded and replies are written as
the other engines do it, and replies are complete. The options are those of ``transformers serve``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cpt_bench.models.usable import hide_unusable_torchvision


def main() -> None:
    """Run the server until it is stopped."""
    hide_unusable_torchvision()
    from transformers import image_processing_backends
    from transformers.cli.serving import utils
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.transformers import main as transformers

    from cpt_bench.models.families import forget_sampling, image_only, kind_of
    from cpt_bench.models.processor import install

    install()
    stock, stock_model = ModelManager._load_processor, ModelManager._load_model

    def load_processor(manager: Any, model: str, *more: Any, **named: Any) -> Any:
        image_only.install(kind_of(Path(model.rpartition("@")[0])))
        return stock(manager, model, *more, **named)

    def load_model(manager: Any, *given: Any, **named: Any) -> Any:
        model = stock_model(manager, *given, **named)
        forget_sampling(model)
        return model

    ModelManager._load_processor, ModelManager._load_model = load_processor, load_model
    image_processing_backends.load_image_as_tensor = decoded
    utils._RESPONSE_TEMPLATE_FALLBACKS.clear()
    sys.argv = ["transformers", "serve", *sys.argv[1:]]
    transformers()


def decoded(image: Any, timeout: float | None = None) -> Any:
    """A picture, by address, path or base64, as a tensor (3, height, width) of bytes."""
    import numpy as np
    import torch
    from transformers.image_utils import load_image

    pixels = np.array(load_image(image, timeout))
    return torch.from_numpy(pixels).permute(2, 0, 1)


if __name__ == "__main__":
    main()
