"""As much of vLLM's interface as the engine uses, answered by transformers: for a CPU.

Names, arguments and their checks follow vllm 0.22 to 0.30: ``LLM(...)``, ``LLM.generate(prompts,
sampling_params, use_tqdm)`` with ``prompt`` and ``multi_modal_data``, ``LLM.collective_rpc(name, args)``
on workers extended by ``worker_extension_cls``, parameters renamed and joined as
``vllm/model_executor/models/qwen2_5_vl.py`` does. Like vLLM's, its encoder cache knows pictures and not
weights: what was seen before a change of weights is seen again, until ``reset_encoder_cache``.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from cpt_bench.engines.vllm_worker import vllm_name


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        assert 0 < self.top_p <= 1 and self.temperature >= 0


@dataclass
class Completion:
    text: str
    token_ids: list[int]
    finish_reason: str = "stop"


@dataclass
class RequestOutput:
    outputs: list[Completion]
    finished: bool = True
    prompt_token_ids: list[int] = field(default_factory=list)


class Model(torch.nn.Module):
    """Parameters under vLLM's names, q, k, v and gate, up joined."""

    def __init__(self, state: dict[str, torch.Tensor], policy: Any) -> None:
        super().__init__()
        self.policy = [policy]  # in a list: no part of the parameters
        parts: dict[str, dict[int, torch.Tensor]] = {}
        for name, tensor in state.items():
            target, place = vllm_name(name)
            parts.setdefault(target, {})[place or 0] = tensor
        self.held = {n: torch.cat([p[i] for i in sorted(p)]) for n, p in parts.items()}

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Each tensor into its part of a parameter, and into the model that answers."""
        state, filled, ends = self.policy[0].state_dict(), set(), dict.fromkeys(self.held, 0)
        rows: dict[str, dict[int, torch.Tensor]] = {}
        for name, tensor in weights:
            target, place = vllm_name(name)
            rows.setdefault(target, {})[place or 0] = tensor
            own = name
            if name not in state:  # files keep the names of before transformers 5
                inner = name.removeprefix("model.")
                own = (
                    f"model.{inner}"
                    if inner.startswith("visual.")
                    else f"model.language_model.{inner}"
                )
            state[own].copy_(tensor)
        for target, parts in rows.items():
            for place in sorted(parts):
                start, ends[target] = ends[target], ends[target] + len(parts[place])
                self.held[target][start : ends[target]] = parts[place]
            filled.add(target)
        return filled

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return iter(self.held.items())


class LLM:
    """vllm.LLM on transformers; keeps the arguments it was made with."""

    made: list[LLM] = []  # noqa: RUF012

    def __init__(self, model: str, *, worker_extension_cls: str = "", **arguments: Any) -> None:
        from safetensors.torch import load_file

        from cpt_bench.models.checkpoint import load_model, load_processor

        known = {
            "tensor_parallel_size", "gpu_memory_utilization", "max_model_len", "dtype", "seed",
            "limit_mm_per_prompt", "enforce_eager", "enable_prefix_caching", "logprobs_mode",
        }  # fmt: skip
        assert set(arguments) <= known, set(arguments) - known
        self.arguments = arguments
        self.policy = load_model(Path(model), device="cpu", attention="eager").eval()
        self.processor = load_processor(Path(model))
        state = load_file(Path(model) / "model.safetensors")
        module, _, name = worker_extension_cls.rpartition(".")
        extension = getattr(importlib.import_module(module), name)
        self.worker = type("Worker", (extension,), {})()
        self.worker.model_runner = SimpleNamespace(model=Model(state, self.policy))
        self.llm_engine = SimpleNamespace(reset_encoder_cache=self._remember_pictures())
        LLM.made.append(self)

    def _remember_pictures(self) -> Any:
        """Let the vision tower answer from memory; returns what empties it."""
        known: dict[bytes, Any] = {}
        tower = self.policy.model.visual
        look = tower.forward

        def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            key = hidden_states.numpy().tobytes()
            if key not in known:
                known[key] = look(hidden_states, *args, **kwargs)
            return copy.copy(known[key])  # the caller cuts it up

        tower.forward = forward
        return known.clear

    def reset_prefix_cache(self) -> bool:
        return True

    def collective_rpc(
        self, method: str, timeout: Any = None, args: Any = (), kwargs: Any = None
    ) -> Any:
        return [getattr(self.worker, method)(*args, **(kwargs or {}))]

    def generate(self, prompts: Any, sampling_params: Any = None, *, use_tqdm: Any = True) -> Any:
        assert len(sampling_params) == len(prompts)
        return [self._one(p, s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: dict[str, Any], sampling: SamplingParams) -> RequestOutput:
        assert set(prompt) <= {"prompt", "multi_modal_data"}
        images = prompt.get("multi_modal_data", {}).get("image", [])
        # vLLM expands each single placeholder itself, as the processor does.
        assert prompt["prompt"].count("<|image_pad|>") == len(images)
        inputs = self.processor(text=[prompt["prompt"]], images=images or None, return_tensors="pt")
        with torch.inference_mode():
            out = self.policy.generate(
                **inputs, max_new_tokens=sampling.max_tokens, do_sample=sampling.temperature > 0
            )
        new = out[0, inputs["input_ids"].shape[1] :].tolist()
        text = self.processor.decode(new, skip_special_tokens=sampling.skip_special_tokens)
        return RequestOutput([Completion(text, new)])


def install(monkeypatch: Any) -> type[LLM]:
    """Put the fake in vLLM's place."""
    module, distributed = ModuleType("vllm"), ModuleType("vllm.distributed")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    distributed.get_tensor_model_parallel_rank = lambda: 0  # type: ignore[attr-defined]
    distributed.get_tensor_model_parallel_world_size = lambda: 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.distributed", distributed)
    LLM.made.clear()
    return LLM
