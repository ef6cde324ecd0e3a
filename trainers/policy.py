"""The policy in training: loading it, its quick path, saving it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import set_seed

from cpt_bench.engines import refuse_special
from cpt_bench.models import families, quick
from cpt_bench.models.checkpoint import adapter_base, load_model, load_processor
from cpt_bench.models.families import pictures
from cpt_bench.models.files import GENERATION
from cpt_bench.trainer import Stage
from cpt_bench.trainers.config import TRLConfig, processes


def load(stage: Stage, config: TRLConfig) -> tuple[Any, Any]:
    """The model and the processor of the checkpoint that the stage starts from."""
    # accelerate places the model where it trains; loading it on the CPU first is enough.
    if config.lora_rank:
        set_seed(stage.seed)  # adapters start at random, before TRL's trainer seeds anything
    model = load_model(stage.policy, device="cpu", dtype=config.dtype, attention=config.attention)
    if config.sharding == "fsdp":
        model._no_split_modules = families.layers_to_shard(model)
    processor = training_processor(stage, config)
    require_words(stage, processor.tokenizer)
    return model, processor


def require_words(stage: Stage, tokenizer: Any) -> None:
    """Refuse samples whose text the tokenizer would read as one of its special tokens.

    Raises:
        CptBenchError: The message names the sample and the token.
    """
    samples = [*stage.samples, *stage.memory.samples()]
    refuse_special(
        ((f"{s.task}, {s.id}", (s.system, s.prompt, s.target, s.rationale or "")) for s in samples),
        families.special_tokens(tokenizer),
    )


def training_processor(stage: Stage, config: TRLConfig) -> Any:
    """The processor of the stage's start, with the limits on pictures that training has."""
    processor = load_processor(stage.policy)
    processor.tokenizer.padding_side = "left"  # TRL pads the prompts of rollouts on this side
    processor.full_size = pictures.full_size(processor)
    pictures.limit_pixels(processor, config.min_pixels, config.max_pixels)
    return processor


def quick_path(trainer: Any) -> quick.QuickModel | None:
    """The quick path of the model that TRL's ``trainer`` trains; None where TRL has to compute it.

    It serves one process without gradient checkpointing; see :mod:`cpt_bench.models.quick`.
    """
    if processes() > 1 or trainer.args.gradient_checkpointing:
        return None
    return quick.of(trainer.accelerator.unwrap_model(trainer.model))


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch ``model`` to evaluation, and afterwards back to the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def bare(trainer: Any) -> Any:
    """The transformers model that is trained: without wrappers, with the layers of its adapters."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def pass_on(model: Any, processor: Any, stage: Stage, why: str) -> None:
    """Write the stage's start as its result, because its method found nothing to learn from."""
    stage.tell(f"stage {stage.index} ({stage.task}): {why}; the policy stays as it is")
    model.save_pretrained(stage.output)
    _save_rest(processor, stage)


def save(trainer: Any, processor: Any, stage: Stage) -> None:
    """Write the trained policy to ``stage.output`` as safetensors with its processor.

    Adapters are merged into the weights: every checkpoint is a whole model. Where several processes
    train, all of them must call this, and the first one writes.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        if trainer.args.should_save:
            model.merge_and_unload().save_pretrained(stage.output)
    else:
        trainer.save_model(str(stage.output))
    if trainer.args.should_save:
        _save_rest(processor, stage)


def _save_rest(processor: Any, stage: Stage) -> None:
    """Write what a checkpoint has besides weights and their settings, as at the stage's start."""
    start = Path(adapter_base(stage.policy) or stage.policy) / GENERATION
    if start.is_file():  # the model was loaded without what it says of sampling
        shutil.copyfile(start, stage.output / GENERATION)
    pictures.restore_size(processor, processor.full_size)
    processor.save_pretrained(stage.output)
