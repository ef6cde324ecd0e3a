"""Makes vLLM's workers on a CPU compute with their visible parameters.

vLLM's CPU build packs the weights of linear layers when a model is loaded and computes with the
packed copies. Later loads do not reach those copies, and the parameters themselves are emptied, so
that they could be neither compared nor replaced. Here each layer multiplies by its parameter.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers import utils

from cpt_bench.engines.vllm_worker import WeightsCheck


def unpacked(layer: Any, remove_weight: bool) -> None:
    """Make ``layer`` compute with its weight; replaces vLLM's packing."""
    layer.cpu_linear = torch.nn.functional.linear


# Workers import this module before they load a model (worker_extension_cls).
utils.dispatch_cpu_unquantized_gemm = unpacked


class CPUWeightsCheck(WeightsCheck):
    """The same methods, for workers that compute as described above."""
