"""The imports of the fork server before it forks; see :mod:`cpt_bench.worker.process`."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import threading

from cpt_bench.plugins import preloaded

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
# TRL sends telemetry to its authors for each trainer that is created.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Without the [train] extra there is nothing to preload, and a broken package must not end the fork
# server: the worker that needs the package reports what is wrong.
with contextlib.suppress(Exception):
    from cpt_bench.models.usable import hide_unusable_torchvision

    hide_unusable_torchvision()  # before transformers looks for it

    from tqdm import tqdm  # type: ignore[import-untyped]
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import cpt_bench.models.checkpoint
    import cpt_bench.models.processor  # noqa: F401

    for module in preloaded():
        importlib.import_module(module)

    # tqdm's own lock is shared between processes; a child that is killed would leak its semaphore.
    tqdm.set_lock(threading.RLock())

    # A table of a thousand patterns, otherwise compiled when the first model is loaded.
    get_checkpoint_conversion_mapping("qwen2_5_vl")

# Everything imported so far lives as long as each child: their garbage collectors can skip it.
gc.collect()
gc.freeze()
