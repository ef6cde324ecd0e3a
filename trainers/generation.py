"""Rollouts by vLLM, as TRL has it do them, with what goes wrong there mended.

TRL keeps a vLLM in the trainer's process (``colocate``) or speaks to one (``server``), and gives it
the policy's weights before each batch of rollouts. As it stands in TRL 1.16,

* a colocated vLLM gets prompts whose image tokens are expanded already, and expands them again
  (trl issue 6294);
* vLLM goes on with the pictures as it saw them under earlier weights: it remembers what the vision
  tower made of a picture (trl issue 7198);
* a policy in float32 writes its rollouts in bfloat16, which vLLM's ``dtype="auto"`` makes of it;
* rollouts are drawn from the same random state in each stage and under each seed;
* a policy may write an image token, for which the trainer then looks for a part of a picture;
* with ``top_p`` below 1, vLLM's log-probabilities are those within the nucleus. TRL weighs a reply
  by what the trainer computes against them, which is meant for differences in rounding, and so
  would weigh long replies less; it weighs no reply that transformers wrote. Where the policy's
  own cannot be had, TRL's weights are off (:func:`~cpt_bench.trainers.rft.nucleus_alone`).

:func:`vllm_generation` puts :class:`Generation` in the place of TRL's class while TRL makes its
trainer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trl.generation import vllm_generation as stock
from trl.trainer import grpo_trainer, rloo_trainer

from cpt_bench.engines import vllm_open
from cpt_bench.engines.vllm_open import Cures
from cpt_bench.errors import CptBenchError
from cpt_bench.models.families import pictures
from cpt_bench.trainer import Stage

NEVER = -100.0
"""The lowest bias on a logit that vLLM takes."""

CURES = Cures(memory="vllm_memory", length="max_new_tokens or max_pixels", images="the suite")


@contextlib.contextmanager
def vllm_generation(config: Any, stage: Stage) -> Iterator[None]:
    """Let TRL's trainers make a :class:`Generation`.

    Args:
        config: RFT's settings.
        stage: The stage.

    Raises:
        CptBenchError: There is no vLLM, or it computes elsewhere than the trainer.
    """
    if not config.use_vllm:
        yield
        return
    vllm_open.require_installed()
    if vllm_open.on_cpu() and not config.on_cpu():
        raise CptBenchError("the vLLM that is installed computes on a CPU", todo="Set device=cpu")
    if vllm_open.on_cpu() and config.vllm_mode == "server":
        raise CptBenchError(
            "weights reach a server from a GPU alone", todo="Set vllm_mode=colocate"
        )
    ours = functools.partial(Generation, dtype=config.dtype, run_seed=stage.seed)
    with (
        replaced(grpo_trainer, "VLLMGeneration", ours),
        replaced(rloo_trainer, "VLLMGeneration", ours),
    ):
        yield


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Another ``value`` under a module's ``name``, for the time being."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


class Generation(stock.VLLMGeneration):  # type: ignore[misc]
    """TRL's way to vLLM, mended; see the module.

    Args:
        model: The policy.
        dtype: The policy's arithmetic.
        run_seed: Seeds the draws of this stage.
        given: What TRL gives its own class.

    Attributes:
        own_logprobs: Whether the log-probabilities are the policy's own; else they are those of the
            tokens that could be drawn.
    """

    def __init__(self, model: Any, *given: Any, dtype: str, run_seed: int, **more: Any) -> None:
        self.dtype, self.run_seed, self.own_logprobs = dtype, run_seed, False
        self.image_token = pictures.token_of(model)
        # What TRL hands on is for transformers, which it has leave out the image token by itself.
        without = {} if self.image_token is None else {"logit_bias": {self.image_token: NEVER}}
        # RLOO asks for no log-probabilities, but the self-check compares them.
        super().__init__(model, *given, **{**more, "logprobs": 0, "generation_kwargs": without})

    def _init_vllm(self) -> None:
        if self.mode != "colocate":
            with vllm_open.one_line("be reached", self.server_base_url or self.server_host, CURES):
                super()._init_vllm()
            return
        with (
            replaced(stock, "LLM", self._open),
            vllm_open.one_line("open the policy", Path(self.model.name_or_path), CURES),
        ):
            super()._init_vllm()

    def _open(self, model: str, **asked: Any) -> Any:
        """``vllm.LLM`` with the policy's dtype, the stage's seed, and memory that a CPU has."""
        from vllm import LLM

        memory, longest = asked.pop("gpu_memory_utilization"), asked.get("max_model_len")
        if vllm_open.on_cpu():
            memory = None
            asked["enforce_eager"] = True  # compiling takes longer than a stage of a small model
        ours = vllm_open.arguments(
            Path(model), dtype=self.dtype, memory=memory, max_model_len=longest
        )
        del ours["enable_prefix_caching"]  # rollouts share their prompt; emptied with each sync
        if self.temperature == 1:  # raw ones know nothing of another temperature either
            asked["logprobs_mode"], self.own_logprobs = "raw_logprobs", True
        seed = (self.run_seed * 1000 + asked["seed"]) % 2**31
        return LLM(model=model, **{**asked, **ours, "seed": seed})

    def sync_weights(self) -> None:
        """Send the weights as TRL does, then make vLLM encode every picture again."""
        super().sync_weights()
        self.forget_pictures()

    def forget_pictures(self) -> None:
        """Make vLLM encode every picture again.

        Raises:
            CptBenchError: The server does not offer this.
        """
        if self.mode == "colocate":
            self.llm.llm_engine.reset_encoder_cache()
        elif self.accelerator.is_main_process:
            place = f"{self.vllm_client.base_url}/reset_encoder_cache"
            answer = self.vllm_client.session.post(place)
            if answer.status_code != 200:
                raise CptBenchError(
                    f"the server cannot forget pictures that it saw under earlier weights "
                    f"(status {answer.status_code})",
                    where=place,
                    todo="Start it with VLLM_SERVER_DEV_MODE=1",
                )

    def generate(
        self,
        prompts: list[list[int]],
        images: list[list[Any] | None] | None,
        num_generations: int,
        profiler: Any = None,
    ) -> tuple[Any, Any, Any, Any]:
        """TRL's, with prompts as vLLM takes them, and with replies that are whole.

        Raises:
            CptBenchError: vLLM read other tokens than the trainer does, wrote an image token, or
                its own limit ended a reply.
        """
        asked = prompts
        if images is not None and self.mode == "colocate":
            token = self.processing_class.image_token_id
            asked = [
                once_a_picture(prompt, token, len(shown or ()))
                for prompt, shown in zip(prompts, images, strict=True)
            ]
        with vllm_open.one_line("write rollouts", Path(self.model.name_or_path), CURES):
            seen, written, logprobs, tokens = super().generate(
                asked, images, num_generations, profiler
            )
        for ours, theirs in zip(prompts, seen, strict=True):
            if list(ours) != list(theirs):
                raise CptBenchError(
                    f"vLLM reads another prompt than the trainer: {first_difference(theirs, ours)}",
                    todo="Use a tested set of versions (cptbench doctor), or use_vllm=false",
                )
        for reply in written:
            if self.image_token in reply:
                raise CptBenchError(
                    "vLLM wrote an image token, which stands for no picture, against a bias of "
                    f"{NEVER:g}",
                    todo="Use use_vllm=false, or a policy that has learned not to",
                )
            if len(reply) < self.max_completion_length and reply[-1:] not in self._ends():
                raise CptBenchError(
                    f"vLLM ended a rollout after {len(reply)} of {self.max_completion_length} "
                    "tokens: prompt and reply are longer than the model takes",
                    todo=f"Lower {CURES.length}",
                )
        return seen, written, logprobs, tokens

    def _ends(self) -> list[list[int]]:
        """The tokens that end a reply, as its last token may be."""
        ends = self.model.generation_config.eos_token_id
        own = [ends] if isinstance(ends, int) else list(ends or ())
        return [[end] for end in {*own, self.processing_class.tokenizer.eos_token_id}]


def once_a_picture(prompt: Sequence[int], token: int, pictures: int) -> list[int]:
    """A prompt with one image token for each picture, where the trainer has a run of them.

    Args:
        prompt: Token ids.
        token: The image token.
        pictures: How many the prompt has.

    Raises:
        CptBenchError: There are more or fewer runs than pictures.
    """
    kept = [t for i, t in enumerate(prompt) if t != token or i == 0 or prompt[i - 1] != token]
    if kept.count(token) != pictures:
        raise CptBenchError(
            f"a prompt has {kept.count(token)} runs of image tokens for {pictures} pictures",
            todo="Use use_vllm=false, and report the model's architecture",
        )
    return kept


def first_difference(engine: Sequence[int], trainer: Sequence[int]) -> str:
    """Where two prompts part, in words."""
    for i, (x, y) in enumerate(zip(engine, trainer, strict=False)):
        if x != y:
            return f"token {i} is {x} for the engine and {y} for the trainer"
    return f"{len(engine)} tokens for the engine and {len(trainer)} for the trainer"
