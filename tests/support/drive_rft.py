"""Stages of RFT with a colocated vLLM, in one process: ``python -m tests.support.drive_rft FILE``.

FILE holds a JSON list of cases and gets a list of what came of them. A case has ``trainer``, ``set``
(settings), ``stage`` (what is changed in the stage's document), ``policy``, ``suite`` and ``task``,
``samples`` (the first so many alone) and ``fault`` (something of :data:`FAULTS`). A process of its
own: vLLM and torch's process groups outlive what opened them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cpt_bench.engines import vllm_open
from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import resolve
from cpt_bench.suite import load_suite, open_suite
from cpt_bench.trainers import generation
from cpt_bench.trainers.generation import Generation, replaced, stock
from tests.support.stages import TINY, make_stage


def same_pictures() -> Any:
    """vLLM keeps what it made of pictures under earlier weights (trl issue 7198)."""
    return replaced(Generation, "sync_weights", stock.VLLMGeneration.sync_weights)


def expanded_twice() -> Any:
    """vLLM gets prompts whose image tokens are expanded already (trl issue 6294)."""
    return replaced(generation, "once_a_picture", lambda prompt, token, pictures: list(prompt))


def never_synced() -> Any:
    """vLLM keeps the weights that it was opened with."""
    forget = Generation.forget_pictures
    return replaced(Generation, "sync_weights", forget)


def own_dtype() -> Any:
    """vLLM chooses the dtype: bfloat16 for a float32 policy."""
    given = vllm_open.arguments

    def chosen(*args: Any, **more: Any) -> dict[str, Any]:
        return {**given(*args, **more), "dtype": "auto"}

    return replaced(vllm_open, "arguments", chosen)


FAULTS: dict[str, Callable[[], Any]] = {
    fault.__name__: fault for fault in (same_pictures, expanded_twice, never_synced, own_dtype)
}


def carry_out(case: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"rows": [], "written": [], "logprobs": []}
    open_, generate = Generation._open, Generation.generate

    def opened(self: Any, *args: Any, **more: Any) -> Any:
        llm = open_(self, *args, **more)
        told["dtypes"] = llm.apply_model(_dtypes)[0]
        return llm

    def written(self: Any, *args: Any, **more: Any) -> Any:
        out = generate(self, *args, **more)
        told["written"].append(out[1])
        told["logprobs"].append([[float(token[0]) for token in reply] for reply in out[2]])
        return out

    base = open_suite("nano").base_path()
    stage = make_stage(
        case.get("task", "counting"), Path(case.get("policy", base)), Path(tempfile.mkdtemp()),
        told["rows"], load_suite(Path(case["suite"])) if "suite" in case else TINY,
        **case.get("stage", {}),
    )  # fmt: skip
    if "samples" in case:
        stage = replace(stage, samples=stage.samples[: case["samples"]])
    trainer = resolve("trainers", case.get("trainer", "rft")).value
    settings = {"learning_rate": 1e-3, "max_steps": 3, "prompts_per_step": 4, "rollouts": 4}
    settings |= {"device": "cpu", "use_vllm": True, **case.get("set", {})}
    fault = FAULTS.get(case.get("fault", ""), contextlib.nullcontext)
    watch = replaced(Generation, "_open", opened), replaced(Generation, "generate", written)
    with fault(), watch[0], watch[1]:
        try:
            trainer(trainer.Config(**settings)).train(stage)
        except (CptBenchError, ValueError) as error:
            told["error"] = f"{type(error).__name__}: {error}"
    gc.collect()
    print(case, told.get("error", ""), flush=True)
    return told


def _dtypes(model: Any) -> list[str]:
    return sorted({str(parameter.dtype) for parameter in model.parameters()})


def main() -> None:
    torch.set_num_threads(1)
    file = Path(sys.argv[1])
    cases = json.loads(file.read_text())
    file.write_text(json.dumps([carry_out(case) for case in cases]))


if __name__ == "__main__":
    main()
