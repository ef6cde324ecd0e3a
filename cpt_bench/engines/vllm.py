"""Generation with vLLM in this process, with its weights read back before each evaluation.

vLLM has served stale weights without a word: ``reload_weights`` that returned what it had cached
(vllm issue 32718), an engine woken from deep sleep with garbage (54235). So the workers themselves
compare what they hold with the checkpoint's files when the engine opens and after each swap, tensor
by tensor, and a checksum of all parameters must still be the same whenever something is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cpt_bench.engines import GREEDY, Reply, Request, Sampling, cut_short, refuse_prefix
from cpt_bench.engines.hf import messages
from cpt_bench.engines.swapping import frame, require_same, require_whole
from cpt_bench.engines.vllm_open import arguments, one_line, require_installed
from cpt_bench.environment import folder_for_sockets
from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import broken, load_processor, weights_digest

PROBLEMS = {
    "differ": "tensors differ",
    "unknown": "tensors belong to no parameter",
    "unfilled": "parameters come from no tensor",
}
"""What :func:`cpt_bench.engines.vllm_worker.compare` may find, and the words for it."""


class VLLMEngine:
    """One checkpoint in vLLM.

    Args:
        folder: The checkpoint.
        tensor_parallel: GPUs that share one copy.
        memory: Share of GPU memory vLLM may take, in (0, 1]; None takes 0.9. On a CPU: share of the
            machine's memory for keys and values; None takes what 64 sequences of the greatest
            length need, and no more than a quarter of what is free.
        max_model_len: Longest prompt and reply together, in tokens; None takes the model's.
        max_images: Pictures a prompt at most.
        dtype: Arithmetic; ``auto`` is the checkpoint's.
        eager: No CUDA graphs, and on a CPU no compiling: slower, starts sooner.
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
        # Requests of one process, in one order: the setting under which vLLM documents that the
        # same requests give the same replies on the same hardware.
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
                limit_mm_per_prompt={"image": max_images, "video": 0},
                enforce_eager=eager,
                seed=0,
                **chosen,
            )
        self._compare()
        self._checksums = self._read_back()

    def swap(self, folder: Path) -> None:
        """Put the weights of another checkpoint into vLLM, in place, and compare them.

        Raises:
            CptBenchError: It differs in more than its weights, or the workers do not hold it
                afterwards. The engine answers nothing any more.
        """
        self.weights = ""  # nothing may answer in the old checkpoint's name, nor half of the new
        require_same(self.frame, folder)
        self.folder = Path(folder)
        weights = weights_digest(self.folder)
        try:
            self._rpc("cptbench_load", str(self.folder))
        except Exception as error:  # of whatever kind, from whichever process
            raise broken(self.folder, error) from error
        # Pictures met before keep their features, by the picture alone (vllm issue 44910).
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
                # No two requests of two seeds share a state, as they would with seed + i.
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
        # Not vLLM's text: it leaves out the part of a character that a limit cut in two.
        texts = self.processor.batch_decode(written, skip_special_tokens=True)
        return [
            Reply(text.strip(), len(tokens)) for text, tokens in zip(texts, written, strict=True)
        ]

    def prompt(self, request: Request) -> dict[str, Any]:
        """A request as vLLM takes it: the chat text with one placeholder an image, and the images.

        One placeholder each: vLLM repeats it as often as the picture has tokens. Ids that were
        expanded before would be expanded twice (trl issue 6294).
        """
        turns = messages(request)
        text = self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        pictures = [part["image"] for part in turns[0]["content"] if part["type"] == "image"]
        if text.count(self.processor.image_token) != len(pictures):
            raise CptBenchError(
                f"the chat template has {text.count(self.processor.image_token)} places for "
                f"{len(pictures)} images",
                where=request.id,
            )
        return {"prompt": text, **({"multi_modal_data": {"image": pictures}} if pictures else {})}

    def _compare(self) -> None:
        for rank, found in enumerate(self._rpc("cptbench_compare", str(self.folder), self.dtype)):
            for problem, says in PROBLEMS.items():
                if names := found[problem]:
                    raise CptBenchError(
                        f"vLLM's worker {rank} does not hold the checkpoint's weights: "
                        f"{len(names)} {says}, first {names[0]} ({found['compared']} of "
                        f"{found['total']} numbers were compared)",
                        where=self.folder,
                        todo="--engine transformers shows whether the checkpoint is whole",
                    )

    def _read_back(self) -> list[Any]:
        return self._rpc("cptbench_checksum")

    def _rpc(self, method: str, *args: Any) -> list[Any]:
        """What each worker says, in the order of their ranks."""
        return list(self._llm.collective_rpc(method, args=args))
