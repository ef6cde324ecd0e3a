"""Reinforcement fine-tuning on verifiable rewards: GRPO, RLOO or ReMax.

For each prompt the policy writes ``rollouts`` replies, and the suite's own grader rewards each (0.9
for the right answer, 0.1 for the form). The gradient of a reply's log-probability is scaled by its
reward minus a baseline. The algorithms differ only in the baseline:

* ``grpo``: the mean of the prompt's rollouts, in units of their standard deviation
  (Shao et al. 2024, arXiv 2402.03300, eq. 3).
* ``rloo``: the mean of the prompt's *other* rollouts (Ahmadian et al. 2024, arXiv 2402.14740,
  eq. 9).
* ``remax``: the reward of the greedy reply (Li et al. 2023, arXiv 2310.10505, eq. 6).

``ratio=sequence`` makes it GSPO.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from datasets import Dataset
from pydantic import Field, model_validator
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from cpt_bench.engines import vllm_open
from cpt_bench.errors import CptBenchError
from cpt_bench.models.families.text import without_image_token
from cpt_bench.trainer import Stage
from cpt_bench.trainers.base import TRLTrainer
from cpt_bench.trainers.config import TRLConfig
from cpt_bench.trainers.generation import vllm_generation
from cpt_bench.trainers.log import StageLog, Stopwatch
from cpt_bench.trainers.parts.frozen import reference_policy
from cpt_bench.trainers.parts.part import Part, joined
from cpt_bench.trainers.parts.replay import repeated
from cpt_bench.trainers.policy import load, pass_on, quick_path, save
from cpt_bench.trainers.resuming import Resumed
from cpt_bench.trainers.rows import dataset, shown, user_turn
from cpt_bench.trainers.selfcheck import TOLERANCE, SelfCheck
from cpt_bench.trainers.shared import SharedPrompts, share


class RFT(TRLTrainer):
    """Reinforcement fine-tuning with TRL's GRPOTrainer and RLOOTrainer."""

    class Config(TRLConfig):
        """Settings of :class:`RFT`.

        Attributes:
            algorithm: The baseline; see the module.
            prompts_per_step: Prompts in a batch of one process.
            rollouts: Replies to each prompt.
            updates_per_generation: Optimiser steps made of one batch of rollouts, each with another
                part of it. The publication draws 512 prompts and makes four steps of 128.
            temperature: Temperature of the rollouts.
            top_p: Nucleus of the rollouts. Below 1, they are not drawn from the policy's own
                probabilities.
            begin: How rollouts begin: as the policy likes (``free``), with the answer
                (``direct``), or with a thought (``reasoning``). The beginning is given, not
                learned.
            kl: Weight of the KL penalty (in the loss; for RLOO in the reward) towards the policy
                that ``reference`` names; 0 loads no second model.
            clip: PPO's clipping range of the probability ratio (acts from the second update on).
            clip_high: The upper range, where it differs.
            clip_dual: Upper limit of the ratio where the advantage is negative (dual clip, Ye et
                al. 2020, arXiv 1912.09729); None sets no limit.
            average: How the loss is averaged: each ``sequence`` weighs the same, or each ``token``
                of the step.
            ratio: The probability ratio that is clipped: of each ``token``, or of the whole
                ``sequence``, as the geometric mean of its tokens' (GSPO, Zheng et al. 2025, arXiv
                2507.18071, eq. 7). They differ from the second update on.
            replay_choice: With ``replay``: which old prompts come back, a ``uniform`` draw, or
                those chosen by ``pass_rate``. See :mod:`cpt_bench.trainers.parts.promptreplay`.
            replay_window: The pass rates at which a prompt may come back.
            replay_cooldown: Batches between two draws of a prompt.
            use_vllm: Generate rollouts with vLLM instead of transformers.
            vllm_mode: ``colocate`` shares the training GPUs, ``server`` uses others.
            vllm_memory: Share of GPU memory for vLLM, in (0, 1]; on a CPU it takes what it needs.
            self_check: Prompts on which rollouts are compared with the trainer before the first
                step, and with vLLM after it; 0 compares nothing. See
                :mod:`cpt_bench.trainers.selfcheck`.
            self_check_tolerance: Largest mean difference of a token's log-probability; None takes
                1e-3 for float32 and 0.05 for bfloat16.
        """

        algorithm: Literal["grpo", "rloo", "remax"] = "grpo"
        prompts_per_step: int = Field(default=16, ge=1)
        rollouts: int = Field(default=8, ge=2)
        updates_per_generation: int = Field(default=1, ge=1)
        temperature: float = Field(default=1.0, gt=0)
        top_p: float = Field(default=1.0, gt=0, le=1)
        begin: Literal["free", "direct", "reasoning"] = "free"
        kl: float = Field(default=0.0, ge=0)
        clip: float = Field(default=0.2, gt=0)
        clip_high: float | None = Field(default=None, gt=0)
        clip_dual: float | None = Field(default=None, gt=1)
        average: Literal["sequence", "token"] = "sequence"
        ratio: Literal["token", "sequence"] = "token"
        replay_choice: Literal["uniform", "pass_rate"] = "uniform"
        replay_window: tuple[float, float] = (0.24, 0.7)
        replay_cooldown: int = Field(default=5, ge=0)
        use_vllm: bool = False
        vllm_mode: Literal["colocate", "server"] = "colocate"
        vllm_memory: float = Field(default=0.3, gt=0, le=1)
        self_check: int = Field(default=4, ge=0)
        self_check_tolerance: float | None = Field(default=None, gt=0)

        @model_validator(mode="after")
        def _goes_together(self) -> RFT.Config:
            if self.use_vllm and self.device == "cpu" and not vllm_open.on_cpu():
                raise ValueError("use_vllm needs a GPU, or vLLM's CPU build: set device=cuda")
            if self.kl and self.reference == "base" and self.lora_rank:
                raise ValueError("lora_rank with kl needs reference=start")
            if self.algorithm == "rloo" and (self.clip_dual or self.average != "sequence"):
                raise ValueError("algorithm=rloo has neither clip_dual nor average=token")
            if self.ratio == "sequence" and (self.algorithm == "rloo" or self.average == "token"):
                raise ValueError("ratio=sequence needs algorithm=grpo or remax, average=sequence")
            if self.replay_choice == "pass_rate" and self.replay_share > 0.5:
                raise ValueError("replay_choice=pass_rate replaces half of a batch at most")
            return self

    def train(self, stage: Stage) -> None:
        model, processor = load(stage, self.config)
        log = StageLog(stage, self.config.prompts_per_step)
        stage, parts = self.begin(stage, model, log)
        if not stage.samples:
            return pass_on(model, processor, stage, "no prompt passed the filter")
        batch = self.config.prompts_in(1, self.config.prompts_per_step)
        if len(stage.samples) < batch:  # TRL drops a batch that is not full: none would be left
            stage = replace(stage, samples=repeated(stage.samples, batch, stage.seed))
        with tempfile.TemporaryDirectory() as scratch, beginning(processor, self.prefix(stage)):
            trainer = self.build(stage, parts, model, processor, Path(scratch))
            self.learn(trainer, stage, parts, log)
        save(trainer, processor, stage)

    def build(
        self, stage: Stage, parts: Sequence[Part], model: Any, processor: Any, scratch: Path
    ) -> Any:
        """TRL's trainer for the stage, with the penalties of ``parts`` in its loss."""
        if self.config.kl:
            # TRL loads the reference of its penalty from the path in the model's config.
            model.config._name_or_path = str(reference_policy(self.config, stage))
        with (
            vllm_generation(self.config, stage),
            without_image_token(model, processor) as more,
        ):
            trainer = joined(self.trainer_class(), parts)(
                model=model,
                args=self.arguments(stage, scratch, **more),
                reward_funcs=reward_function(stage, self.prefix(stage), parts),
                processing_class=processor,
                train_dataset=rows(stage),
                peft_config=self.config.adapters(),
            )
        trainer.drawn_from = stage.samples  # by the number that a row has
        share(trainer, quick_path(trainer), losses=not self.needs_trl_loss(parts))
        return trainer

    def before_first_step(self, trainer: Any, stage: Stage, log: StageLog) -> None:
        if self.config.self_check:
            tolerance = self.config.self_check_tolerance or TOLERANCE[self.config.dtype]
            check = SelfCheck(trainer, stage, log, self.config.self_check, tolerance)
            check.before()
            if self.config.use_vllm:
                trainer.add_callback(check)
        _time_generation(trainer, Stopwatch(log))

    def trainer_class(self) -> type[GRPOTrainer | RLOOTrainer]:
        """TRL's trainer, or ours on its machinery."""
        known = {"grpo": SharedGRPO, "rloo": SharedRLOO, "remax": ReMaxTrainer}
        return known[self.config.algorithm]

    def prefix(self, stage: Stage) -> str:
        """The text that every rollout begins with, in the protocol's form."""
        return begins(stage, self.config.begin)

    def arguments(self, stage: Stage, scratch: Path, **more: Any) -> Any:
        """TRL's configuration for the stage, with ``more`` arguments of its own."""
        config = self.config
        common = {
            **config.arguments(stage, scratch, config.prompts_per_step),
            "per_device_train_batch_size": config.prompts_per_step * config.rollouts,
            "num_generations": config.rollouts,
            "max_completion_length": stage.max_new_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "beta": config.kl,
            "epsilon": config.clip,
            "epsilon_high": config.clip_high,
            "use_vllm": config.use_vllm,
            **more,
        }
        if config.updates_per_generation > 1:
            common["steps_per_generation"] = (
                config.gradient_accumulation * config.updates_per_generation
            )
        if config.use_vllm:
            common |= {
                "vllm_mode": config.vllm_mode,
                "vllm_gpu_memory_utilization": config.vllm_memory,
            }
        if config.algorithm == "rloo":
            return RLOOConfig(**common)
        # Per-sequence loss as in the paper; TRL's own default is DAPO's per-token normalisation.
        loss = {"sequence": "grpo", "token": "dapo"}[config.average]
        return GRPOConfig(
            **common,
            loss_type=loss,
            delta=config.clip_dual,
            importance_sampling_level=config.ratio,
            vllm_importance_sampling_correction=not nucleus_alone(config),
        )


def nucleus_alone(config: Any) -> bool:
    """Whether the log-probabilities of vLLM's rollouts are those within the nucleus.

    TRL's correction is meant for differences in rounding. With these probabilities it would give
    long replies a lower weight. A vLLM in this process is asked for the
    policy's own, which it only has at temperature 1 (:mod:`cpt_bench.trainers.generation`).
    """
    own = config.vllm_mode == "colocate" and config.temperature == 1
    return bool(config.use_vllm and config.top_p < 1 and not own)


def rows(stage: Stage) -> Dataset:
    """Prompts with their images; by ``sample`` a reply's reward finds the gold answer."""
    return dataset(stage.samples, lambda s: {"prompt": user_turn(s), "images": shown(s)})


def begins(stage: Stage, how: str) -> str:
    """The text that makes a reply begin ``direct`` or ``reasoning``; nothing for ``free``.

    Raises:
        CptBenchError: The protocol's form has no such beginning.
    """
    if how == "free":
        return ""
    text = {"direct": stage.form.open, "reasoning": stage.form.thought[0]}[how]
    if not text:
        raise CptBenchError(
            f"the protocol's form has no tag that a {how} reply begins with",
            where=f"begin={how}",
            todo="Use begin=free",
        )
    return text


@contextlib.contextmanager
def beginning(processor: Any, prefix: str) -> Iterator[None]:
    """Inside this context the processor's chat template writes the beginning of every reply."""
    template = processor.chat_template
    if prefix:
        # Every template ends with the generation prompt, so that the text after it begins the
        # reply for TRL, vLLM and the self-check alike.
        processor.chat_template = (
            template + "{% if add_generation_prompt %}" + prefix + "{% endif %}"
        )
    try:
        yield
    finally:
        processor.chat_template = template


def reward_function(
    stage: Stage, prefix: str = "", parts: Sequence[Part] = ()
) -> Callable[..., list[float]]:
    """The suite's reward in TRL's form: a number for each completion, read after ``prefix``.

    ``parts`` get the accuracies.
    """

    def verifiable(
        completions: list[list[dict[str, str]]],
        sample: list[int],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        texts = [prefix + completion[0]["content"] for completion in completions]
        asked = [stage.samples[i] for i in sample]
        found = [stage.reward(s, text) for s, text in zip(asked, texts, strict=True)]
        log_metric("accuracy", sum(f.accuracy for f in found) / len(found))
        log_metric("format_ok", sum(f.format_ok for f in found) / len(found))
        for part in parts:
            part.graded(asked, [f.accuracy for f in found])
        return [f.total for f in found]

    return verifiable


class SharedGRPO(Resumed, SharedPrompts, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO; see :mod:`cpt_bench.trainers.shared`."""


class SharedRLOO(Resumed, SharedPrompts, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO; see :mod:`cpt_bench.trainers.shared`."""


class ReMaxTrainer(SharedGRPO):
    """ReMax in TRL's GRPOTrainer: the baseline is the reward of the policy's own greedy reply.

    TRL has no hook for advantages. But prompts, rewards and the scored batch pass through the three
    methods below, and the last one replaces the advantages.
    """

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, fields: Any, *args: Any, **kwargs: Any
    ) -> Any:
        self._sampled_from = (prompt_ids, images, fields)
        return super()._generate_single_turn(prompt_ids, images, fields, *args, **kwargs)

    def _greedy_completions(self) -> list[list[int]]:
        owner: Any = self
        if self.use_vllm:
            owner, name, greedy = self.vllm_generation, "temperature", 0.0  # top_p is then moot
        else:
            name = "generation_config"
            greedy = copy.deepcopy(self.generation_config)
            greedy.update(do_sample=False, temperature=None, top_p=None, top_k=None)
        drawn = getattr(owner, name)
        setattr(owner, name, greedy)
        try:
            # vLLM refuses several greedy replies to a prompt: each row is asked for one.
            written = super()._generate_single_turn(*self._sampled_from, num_generations=1)[0]
            return cast("list[list[int]]", written)
        finally:
            setattr(owner, name, drawn)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, ids)
        greedy_ids = self._greedy_completions()
        texts = self.processing_class.batch_decode(greedy_ids, skip_special_tokens=True)
        greedy = [[{"role": "assistant", "content": text}] for text in texts]
        baselines = super()._calculate_rewards(inputs, prompts, greedy, greedy_ids)
        self._beyond_greedy = (rewards - baselines).nansum(dim=1)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mine = len(inputs)
        start = self.accelerator.process_index * mine
        advantages = self._beyond_greedy[start : start + mine]
        batch["advantages"] = advantages.to(batch["advantages"])
        return batch


def _time_generation(trainer: Any, stopwatch: Stopwatch) -> None:
    generate = trainer._generate_single_turn

    def timed(*args: Any, **kwargs: Any) -> Any:
        with stopwatch:
            return generate(*args, **kwargs)

    trainer._generate_single_turn = timed
