"""Generation with vLLM in this process, with its weights verified before each evaluation.

vLLM has silently served stale weights: ``reload_weights`` returned cached ones (vllm issue 32718),
and an engine woken from deep sleep had garbage (54235). So the workers compare their weights with
the checkpoint's files, tensor by tensor, when the engine opens and after each swap, and a checksum
of all parameters is verified at each call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cpt_bench.engines import (
    GREEDY,
    Reply,
    Request,
    Sampling,
    cut_short,
    refuse_prefix,
    refuse_special_in,
)
from cpt_bench.engines.hf import messages
from cpt_bench.engines.swapping import frame, require_same, require_whole
from cpt_bench.engines.vllm_open import arguments, one_line, require_installed
from cpt_bench.environment import folder_for_sockets
from cpt_bench.errors import CptBenchError
from cpt_bench.models import families
from cpt_bench.models.checkpoint import broken, load_processor, weights_digest

PROBLEMS = {
    "differ": "tensors differ",
    "unknown": "tensors belong to no parameter",
    "unfilled": "parameters come from no tensor",
}
"""Problems that :func:`cpt_bench.engines.vllm_worker.compare` may find, and their descriptions."""


class VLLMEngine:
    """One checkpoint in vLLM.

    Args:
        folder: The checkpoint.
        tensor_parallel: GPUs that share one copy.
        memory: Share of GPU memory that vLLM may use, in (0, 1]; None: 0.9. On a CPU: share of the
            machine's memory for keys and values; None: enough for 64 sequences of maximal length,
            but at most a quarter of the free memory.
        max_model_len: Maximal length of prompt and reply together, in tokens; None: the model's.
        max_images: Maximal number of pictures in a prompt.
        dtype: Arithmetic; ``auto`` is the checkpoint's.
        eager: No CUDA graphs, and no compilation on a CPU: slower, but starts sooner.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensor_parallel: int = 1,
        memory: float | None = None,
        max_model_len: int | None = None,
        max_images: int = 8,
        dtype: str = "auto",
        eager: bool = False,
    ) -> None:
        # One process, requests in one order: the setting for which vLLM documents that the same
        # requests give the same replies on the same hardware.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        require_installed()
        if (folder_of_sockets := folder_for_sockets()) is not None:
            os.environ.setdefault("VLLM_RPC_BASE_PATH", str(folder_of_sockets))
        from vllm import LLM

        self.folder = Path(folder)
        self.weights = weights_digest(self.folder)
        self.frame = frame(self.folder)
        self.processor = load_processor(self.folder)
        chosen = arguments(self.folder, dtype=dtype, memory=memory, max_model_len=max_model_len)
        self.dtype: str = chosen["dtype"]
        with one_line("open the checkpoint", self.folder):
            self._llm = LLM(
                model=str(folder),
                tensor_parallel_size=tensor_parallel,
                max_model_len=max_model_len,
                **families.vllm_arguments(self.processor, max_images),
                enforce_eager=eager,
                seed=0,
                **chosen,
            )
        self._compare()
        self._checksums = self._read_back()

    def swap(self, folder: Path) -> None:
        """Load the weights of another checkpoint into vLLM, in place, and compare them.

        Raises:
            CptBenchError: It differs in more than its weights, or the workers do not have them
                afterwards. The engine then refuses to answer.
        """
        self.weights = ""  # a half-loaded model must not answer under either digest
        require_same(self.frame, folder)
        self.folder = Path(folder)
        weights = weights_digest(self.folder)
        try:
            self._rpc("cptbench_load", str(self.folder))
        except Exception as error:  # of any kind, from any process
            raise broken(self.folder, error) from error
        # vLLM caches pictures' features by the picture, not by the weights (vllm issue 44910).
        self._llm.llm_engine.reset_encoder_cache()
        self._llm.reset_prefix_cache()
        self._compare()
        self._checksums = self._read_back()
        self.weights = weights

    def generate(
        self,
        requests: Sequence[Request],
        max_new_tokens: int,
        progress: Callable[[int], None] = lambda done: None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        """Replies, in the order of ``requests``.

        Raises:
            CptBenchError: The weights in vLLM are not those the engine was opened with.
        """
        from vllm import SamplingParams

        refuse_prefix(requests, "vllm")
        require_whole(self.weights)
        if self._read_back() != self._checksums:
            raise CptBenchError(
                "vLLM's weights changed after they were compared with the checkpoint",
                where=self.folder,
                todo="Swap new weights in, or open a new engine for them",
            )
        drawn = sampling.temperature > 0
        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p if drawn else 1.0,
                # With seed + i, requests under neighbouring seeds would share random states.
                seed=(sampling.seed << 24) + i if drawn else None,
                max_tokens=max_new_tokens,
                detokenize=False,
            )
            for i in range(len(requests))
        ]
        prompts = [self.prompt(request) for request in requests]
        with one_line("answer", self.folder):
            answers = self._llm.generate(prompts, sampling_params=parameters, use_tqdm=False)
        if len(answers) != len(requests) or not all(a.finished for a in answers):
            raise CptBenchError(f"vLLM finished {len(answers)} of {len(requests)} requests")
        written = [list(answer.outputs[0].token_ids) for answer in answers]
        for request, answer, tokens in zip(requests, answers, written, strict=True):
            if answer.outputs[0].finish_reason == "length" and len(tokens) < max_new_tokens:
                raise cut_short(request, len(tokens), max_new_tokens, "--engine-set max_model_len")
        progress(len(requests))
        # Not vLLM's text: if the limit splits a character, vLLM drops its first part.
        texts = self.processor.batch_decode(written, skip_special_tokens=True)
        return [
            Reply(text.strip(), len(tokens)) for text, tokens in zip(texts, written, strict=True)
        ]

    def prompt(self, request: Request) -> dict[str, Any]:
        """A request in vLLM's form: the chat text with one placeholder per image, and the images.

        One placeholder each: vLLM repeats it for each of the picture's tokens. Ids that are
        expanded already would be expanded twice (trl issue 6294). Where the chat text has the token
        that begins a text, vLLM is given ids, because it would put that token there once more.
        """
        refuse_special_in([request], families.special_tokens(self.processor.tokenizer))
        turns = messages(request)
        text = self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        pictures = [part["image"] for part in turns[-1]["content"] if part["type"] == "image"]
        token = getattr(self.processor, "image_token", None)
        places = text.count(token) if token else 0
        if places != len(pictures):
            raise CptBenchError(
                f"the chat template has {places} places for {len(pictures)} images",
                where=request.id,
            )
        prompt: dict[str, Any] = {"prompt": text}
        if families.begins_by_itself(self.processor):
            ids = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            prompt = {"prompt_token_ids": ids}
        return {**prompt, **({"multi_modal_data": {"image": pictures}} if pictures else {})}

    def _compare(self) -> None:
        for rank, found in enumerate(self._rpc("cptbench_compare", str(self.folder), self.dtype)):
            for problem, description in PROBLEMS.items():
                if names := found[problem]:
                    raise CptBenchError(
                        f"vLLM's worker {rank} does not hold the checkpoint's weights: "
                        f"{len(names)} {description}, first {names[0]} ({found['compared']} of "
                        f"{found['total']} numbers were compared)",
                        where=self.folder,
                        todo="Try --engine transformers, to see whether the checkpoint is intact",
                    )

    def _read_back(self) -> list[Any]:
        return self._rpc("cptbench_checksum")

    def _rpc(self, method: str, *args: Any) -> list[Any]:
        """Each worker's result, in the order of their ranks."""
        return list(self._llm.collective_rpc(method, args=args))
