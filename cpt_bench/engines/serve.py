"""``python -m cpt_bench.engines.serve CHECKPOINT``: ``transformers serve`` with complete replies.

Stock ``transformers serve`` cannot be used with a suite's checkpoints for two reasons: without
torchvision it cannot open the processors of many models, and for all Qwen models it removes
``<think>…</think>`` from every reply, which cannot be restored exactly, so that the reply cannot be
graded. Here the processor is the image-only one and replies are complete. The options are those of
``transformers serve``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cpt_bench.models.usable import hide_unusable_torchvision


def main() -> None:
    """Run the server until it is stopped."""
    hide_unusable_torchvision()
    from transformers.cli.serving import utils
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.transformers import main as transformers

    from cpt_bench.models.families import image_only, kind_of
    from cpt_bench.models.processor import install

    install()
    stock = ModelManager._load_processor

    def load_processor(manager: Any, model: str, *more: Any, **named: Any) -> Any:
        image_only.install(kind_of(Path(model.rpartition("@")[0])))
        return stock(manager, model, *more, **named)

    ModelManager._load_processor = load_processor
    utils._RESPONSE_TEMPLATE_FALLBACKS.clear()
    sys.argv = ["transformers", "serve", *sys.argv[1:]]
    transformers()


if __name__ == "__main__":
    main()
