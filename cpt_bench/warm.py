"""What the fork server imports before it forks; see :mod:`cpt_bench.worker`."""

from __future__ import annotations

import contextlib
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# Without the [train] extra there is nothing to warm; the worker then says what is missing.
with contextlib.suppress(ImportError):
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import cpt_bench.engines.hf
    import cpt_bench.policy
    import cpt_bench.processor
    import cpt_bench.trainers.rft
    import cpt_bench.trainers.sft  # noqa: F401

    # A table of a thousand patterns, built at the first model that a process loads: half a second.
    get_checkpoint_conversion_mapping("qwen2_5_vl")
