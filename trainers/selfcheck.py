"""Before the first RL step: do the rollout engine and the trainer compute the same?

Rollouts come from one program (vLLM, or transformers' generation) and gradients from another. When
they disagree, training continues but learns something else: placeholders expanded twice (trl issue
6294), images mixed up between prompts (6401), position ids of left-padded batches against
right-padded ones (5785), weights of an earlier step (vllm 32718). So three things are compared on a
few prompts of the stage, and the stage does not start when one differs:

* the tokens of the prompt: the engine's, and those of the protocol's chat turn;
* the image placeholders: as many as the model's family has for pictures of their size;
* the log-probability of each token the engine wrote: the engine's own, and the trainer's for the
  prompt alone, without a batch, padding or cache around it.

With vLLM they are compared once more after the first step, when its weights have been replaced for
the first time, on pictures that it saw under the old ones.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import TrainerCallback

from cpt_bench.engines import Request
from cpt_bench.engines.hf import messages
from cpt_bench.errors import CptBenchError
from cpt_bench.models.families import pictures
from cpt_bench.trainer import Stage
from cpt_bench.trainers.generation import first_difference, replaced
from cpt_bench.trainers.log import StageLog
from cpt_bench.trainers.shared import until

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}
"""Largest mean difference of a token's log-probability, by the arithmetic of the weights."""


class Rollout(NamedTuple):
    """One reply as the engine returns it.

    Attributes:
        prompt: The prompt's token ids, placeholders expanded.
        completion: The reply's token ids.
        logprobs: Of each reply token, as the engine returns them; None where it does not.
    """

    prompt: list[int]
    completion: list[int]
    logprobs: list[float] | None


class Reference(NamedTuple):
    """The same prompt and reply as the trainer's model sees them, one at a time.

    Attributes:
        prompt: Token ids of the protocol's chat turn.
        placeholders: Image tokens that the pictures must have; None where the model's family
            does not tell.
        logprobs: Of each reply token.
    """

    prompt: list[int]
    placeholders: int | None
    logprobs: list[float]


Rollouts = Callable[[Any, Sequence[Any]], list[Rollout]]


def disagreements(
    rollouts: Sequence[Rollout],
    references: Sequence[Reference],
    image_token: int | None,
    tolerance: float,
) -> list[str]:
    """What differs between engine and trainer, one line each; empty when nothing does.

    Args:
        rollouts: The engine's.
        references: The trainer's, in the same order.
        image_token: The token that stands for a part of a picture; None: the model sees none.
        tolerance: Largest mean difference of a token's log-probability.
    """
    found = []
    for i, (rollout, reference) in enumerate(zip(rollouts, references, strict=True)):
        places = 0 if image_token is None else rollout.prompt.count(image_token)
        if reference.placeholders not in (places, None):
            found.append(
                f"prompt {i} has {places} image tokens; its pictures have {reference.placeholders}"
            )
        elif rollout.prompt != reference.prompt:
            found.append(f"prompt {i}: {first_difference(rollout.prompt, reference.prompt)}")
    if found:
        return found
    gaps = differences(rollouts, references)
    if gaps.size and not gaps.mean() <= tolerance:  # NaN is a disagreement too
        found.append(
            f"log-probabilities of {gaps.size} tokens differ by {gaps.mean():.2g} on average "
            f"({gaps.max():.2g} at most); {tolerance:g} is allowed"
        )
    return found


def differences(rollouts: Sequence[Rollout], references: Sequence[Reference]) -> np.ndarray:
    """By how much each token's log-probability differs; of rollouts whose engine gave them."""
    both = [(r, s) for r, s in zip(rollouts, references, strict=True) if r.logprobs is not None]
    return np.array(
        [abs(a - b) for r, s in both for a, b in zip(r.logprobs or (), s.logprobs, strict=True)]
    )


def check(
    trainer: Any,
    stage: Stage,
    prompts: int,
    tolerance: float,
    rollouts: Rollouts | None = None,
    when: str = "before the first step",
) -> np.ndarray:
    """Compare the rollout engine and the trainer on the stage's first prompts.

    Args:
        trainer: TRL's GRPOTrainer or RLOOTrainer.
        stage: The stage; its first samples are used, those with a picture before the others.
        prompts: How many prompts are compared.
        tolerance: Largest mean difference of a token's log-probability.
        rollouts: The engine; by default the trainer's own.
        when: In words, for the message.

    Returns:
        The difference of each token's log-probability.

    Raises:
        CptBenchError: Something differs.
    """
    samples = sorted(stage.samples[: 8 * prompts], key=lambda s: not s.images)[:prompts]
    turns = [messages(Request(s.id, s.prompt, s.images, system=s.system)) for s in samples]
    engine = rollouts or (vllm_rollouts if trainer.use_vllm else transformers_rollouts)
    with undisturbed(trainer):
        token = pictures.token_of(trainer.model)
        found = engine(trainer, turns)
        references = [refer(trainer, turn, r) for turn, r in zip(turns, found, strict=True)]
    differ = disagreements(found, references, token, tolerance)
    if differ:
        raise CptBenchError(
            f"the rollout engine and the trainer disagree {when}: {differ[0]}"
            + (f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""),
            where=f"stage {stage.index} ({stage.task})",
            todo="Use a tested set of versions (cptbench doctor), or use_vllm=false",
        )
    return differences(found, references)


class SelfCheck(TrainerCallback):  # type: ignore[misc]
    """The check before the first step, and with vLLM after it; what it found is in the stage's log.

    Args:
        trainer: TRL's trainer.
        stage: The stage.
        log: Where the differences go.
        prompts: How many are asked.
        tolerance: Largest mean difference of a token's log-probability.
    """

    def __init__(
        self, trainer: Any, stage: Stage, log: StageLog, prompts: int, tolerance: float
    ) -> None:
        self.trainer, self.stage, self.log = trainer, stage, log
        self.prompts, self.tolerance = prompts, tolerance

    def before(self) -> None:
        """Check, and note the differences for the log.

        Raises:
            CptBenchError: Something differs.
        """
        gaps = check(self.trainer, self.stage, self.prompts, self.tolerance)
        self._note("self_check", gaps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step != 1 or state.max_steps == 1:
            return
        when = "after the first step"
        gaps = check(self.trainer, self.stage, self.prompts, self.tolerance, seen_before, when=when)
        self._note("self_check_after_sync", gaps)

    def _note(self, name: str, gaps: np.ndarray) -> None:
        if gaps.size:
            found = {name: float(gaps.mean()), f"{name}_most": float(gaps.max())}
            self.log.figures |= found


@contextlib.contextmanager
def undisturbed(trainer: Any) -> Iterator[None]:
    """Restore random states and the training mode, so that the check changes nothing in the run."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    training = trainer.model.training
    trainer.model.eval()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        trainer.model.train(training)


def transformers_rollouts(trainer: Any, turns: Sequence[Any]) -> list[Rollout]:
    """Rollouts by transformers, as TRL makes them: one batch, padded on the left, with a cache."""
    ids, images, fields = trainer._tokenize_prompts(list(turns))
    if trainer.sharing is not None:
        prompts = trainer.sharing.prompts(ids, images, fields)
        return _shared_rollouts(trainer, ids, prompts)
    from trl.models.utils import unwrap_model_for_generation

    longest = max(map(len, ids))
    pad = trainer.processing_class.tokenizer.pad_token_id
    device = trainer.accelerator.device
    inputs = {
        "input_ids": torch.tensor([[pad] * (longest - len(i)) + list(i) for i in ids]),
        "attention_mask": torch.tensor([[0] * (longest - len(i)) + [1] * len(i) for i in ids]),
    }
    for key, value in fields.items():
        if isinstance(value, torch.Tensor):
            inputs[key] = value
        elif isinstance(value[0], list):  # one row a prompt, as long as its tokens, or a picture
            most = max(map(len, value))
            inputs[key] = torch.tensor([[0] * (most - len(row)) + row for row in value])
        else:
            inputs[key] = torch.tensor(np.array(value))
    inputs = {key: value.to(device) for key, value in inputs.items()}
    with (
        unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
        torch.no_grad(),
    ):
        out = model.generate(
            **inputs,
            generation_config=trainer.generation_config,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = torch.stack(out.logits, dim=1)
    new = out.sequences[:, longest:]
    logps = _logps(trainer, logits, new)
    end = trainer.processing_class.tokenizer.eos_token_id
    rollouts = []
    for prompt, row, logprobs in zip(ids, new.tolist(), logps.tolist(), strict=True):
        reply = until(row, [end])
        rollouts.append(Rollout(list(prompt), reply, logprobs[: len(reply)]))
    return rollouts


def _shared_rollouts(trainer: Any, ids: Sequence[Any], prompts: Any) -> list[Rollout]:
    """Rollouts on the quick path: :mod:`cpt_bench.trainers.shared`."""
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    written = trainer.sharing.write(
        prompts, trainer.temperature, watch=lambda *step: steps.append(step)
    )
    logprobs: list[list[float]] = [[] for _ in ids]
    for at, (rows, logits) in enumerate(steps):
        logps = _logps(trainer, logits, written[rows, at])
        for row, logp in zip(rows.tolist(), logps.tolist(), strict=True):
            logprobs[row].append(logp)
    replies = [until(row, trainer.eos_token_ids) for row in written.tolist()]
    return [
        Rollout(list(prompt), reply, logps[: len(reply)])
        for prompt, reply, logps in zip(ids, replies, logprobs, strict=True)
    ]


def vllm_rollouts(trainer: Any, turns: Sequence[Any]) -> list[Rollout]:
    """Rollouts by the trainer's vLLM, which returns the prompts it saw and log-probabilities."""
    trainer.vllm_generation.sync_weights()
    trainer._last_loaded_step = trainer.state.global_step
    return _by_vllm(trainer, turns)


def seen_before(trainer: Any, turns: Sequence[Any]) -> list[Rollout]:
    """:func:`vllm_rollouts` on pictures that vLLM has just seen under its earlier weights."""
    _by_vllm(trainer, turns)
    return vllm_rollouts(trainer, turns)


def _by_vllm(trainer: Any, turns: Sequence[Any]) -> list[Rollout]:
    ids, images, _ = trainer._tokenize_prompts(list(turns))
    with replaced(trainer.vllm_generation, "top_p", 1.0):  # else they may be the nucleus's
        seen, completions, logprobs, _ = trainer.vllm_generation.generate(
            prompts=ids, images=images, num_generations=1, profiler=contextlib.nullcontext()
        )
    return [
        Rollout(list(prompt), list(completion), [float(token[0]) for token in drawn])
        for prompt, completion, drawn in zip(seen, completions, logprobs, strict=True)
    ]


def refer(trainer: Any, turn: Any, rollout: Rollout) -> Reference:
    """A prompt, and the reply an engine wrote to it, as the trainer's model computes them."""
    processor = trainer.processing_class
    asked = processor.apply_chat_template(
        [turn], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    prompt = asked["input_ids"][0].tolist()
    places = pictures.places(processor, asked, pictures_of(turn))
    completion = torch.tensor([rollout.completion], dtype=torch.long)  # it may be empty
    inputs = dict(asked)
    inputs["input_ids"] = torch.cat([asked["input_ids"], completion], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        words = torch.zeros_like(completion)
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], words], dim=1)
    device = trainer.accelerator.device
    with torch.no_grad(), trainer.accelerator.autocast():
        out = trainer.model(**{key: value.to(device) for key, value in inputs.items()})
    logits = out.logits[:, len(prompt) - 1 : -1]
    logps = _logps(trainer, logits, completion.to(device))
    return Reference(prompt, places, logps[0].tolist())


def pictures_of(turns: Sequence[Any]) -> list[Any]:
    """The pictures that a chat shows, in order."""
    return [part["image"] for turn in turns for part in turn["content"] if part["type"] == "image"]


def _logps(trainer: Any, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of ``tokens`` (..., length) under ``logits`` (..., length, words).

    Those that the rollout engine returns: a vLLM may leave out the image token.
    """
    logits = logits.float() / trainer.temperature
    of_the_drawn = trainer.use_vllm and not trainer.vllm_generation.own_logprobs
    if of_the_drawn and (never := pictures.token_of(trainer.model)) is not None:
        logits = logits.index_fill(-1, torch.tensor([never], device=logits.device), -torch.inf)
    scaled = torch.log_softmax(logits, dim=-1)
    return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
