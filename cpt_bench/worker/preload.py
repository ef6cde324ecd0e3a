"""What the fork server imports before it forks; see :mod:`cpt_bench.worker.process`."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import threading

from cpt_bench.plugins import preloaded

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
# TRL reports every trainer that is made to its makers; a benchmark reports nothing to anybody.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Without the [train] extra there is nothing to import early, and a package that is broken must not
# end the fork server: the worker that needs it reports what is wrong.
with contextlib.suppress(Exception):
    from tqdm import tqdm  # type: ignore[import-untyped]
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import cpt_bench.models.checkpoint
    import cpt_bench.models.processor  # noqa: F401

    for module in preloaded():
        importlib.import_module(module)

    # tqdm's own lock holds between processes, and a child that is killed would leave its semaphore.
    tqdm.set_lock(threading.RLock())

    # A table of a thousand patterns, compiled when the first model is loaded.
    get_checkpoint_conversion_mapping("qwen2_5_vl")

# What is here now lives as long as each child: no collection of a child need look at it again.
gc.collect()
gc.freeze()
