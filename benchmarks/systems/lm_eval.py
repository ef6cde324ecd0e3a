"""lm-eval's ``hf-multimodal``, called by its ``simple_evaluate``.

Its seconds are those of what stands between questions and replies: making the requests (with the
chat template, and pictures read) and ``generate_until``. What ``simple_evaluate`` does besides
(listing the machine's packages, metrics, hashes of samples) takes a second or so more; it is told
apart, as ``beside``, and not held against it.

All it has of cptbench is that its processor needs no torchvision.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from unittest import mock

import torch
from lm_eval import simple_evaluate
from lm_eval.api.task import Task
from lm_eval.models.hf_vlms import HFMultimodalLM
from lm_eval.tasks import TaskManager

from benchmarks.systems import WARM_UP, Clock, Place, quickest, serve
from cpt_bench.models.processor import Qwen2_5_VLProcessor, install

TRIED_WITH = 64


def stock_processor() -> None:
    """The processor without torchvision, and without anything of cptbench that is quicker."""
    install()
    for name in list(vars(Qwen2_5_VLProcessor)):
        if name == "__call__" or not name.startswith("__"):
            delattr(Qwen2_5_VLProcessor, name)


def check(model: HFMultimodalLM) -> None:
    """That nothing which answers is cptbench's."""
    for part in (*model.model.modules(), model.processor.image_processor, model.tokenizer):
        assert not type(part).__module__.startswith(("cpt_bench", "benchmarks")), type(part)


def timed(work: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
    """``work``, whose time ``clock`` adds up."""

    def called(*args: Any, **kwargs: Any) -> Any:
        with clock.running():
            return work(*args, **kwargs)

    return called


class LMEval:
    """The model class of lm-eval, with the attention that is quicker."""

    def __init__(self, place: Place) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        stock_processor()
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.place = place
        self.tasks = TaskManager(include_path=str(place.questions), include_defaults=False)
        attention, self.model = quickest(["eager", "sdpa"], self.load, self.warm_up)
        check(self.model)
        self.about = {name: version(name) for name in ("lm_eval", "torch", "transformers")}
        self.about["attention"] = attention

    def load(self, attention: str) -> HFMultimodalLM:
        return HFMultimodalLM(
            pretrained=str(self.place.model), device="cpu", dtype="float32", batch_size=1,
            attn_implementation=attention,
        )  # fmt: skip

    def warm_up(self, model: HFMultimodalLM) -> None:
        self.model = model
        self.answer(WARM_UP, TRIED_WITH)

    def answer(self, task: str, batch: int) -> dict[str, Any]:
        self.model.batch_size_per_gpu = batch
        replies, whole = Clock(), Clock()
        making, writing = Task.build_all_requests, HFMultimodalLM.generate_until
        with (
            mock.patch.object(Task, "build_all_requests", timed(making, replies)),
            mock.patch.object(HFMultimodalLM, "generate_until", timed(writing, replies)),
            whole.running(),
        ):
            found: Any = simple_evaluate(
                model=self.model, tasks=[task], apply_chat_template=True,
                task_manager=self.tasks, bootstrap_iters=0, log_samples=True,
            )  # fmt: skip
        rows = sorted(found["samples"][task], key=lambda row: row["doc_id"])
        return {
            **replies.said,
            "beside": whole.said["seconds"] - replies.said["seconds"],
            "replies": [row["resps"][0][0].strip() for row in rows],
        }


if __name__ == "__main__":
    serve(LMEval)
