"""What ``cptbench plan`` says of a measured stage, and with which constants it would be right."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import card
from benchmarks.gpu.scale import Scale
from cpt_bench.advice import estimate
from cpt_bench.advice.estimate import ASSUMED, Settings
from cpt_bench.models.families.weights import Architecture


def compare(scale: Scale, rewarded: bool, config: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The plan's figures for a stage beside what was measured.

    Args:
        scale: The sizes.
        rewarded: Whether it learned from rollouts.
        config: The trainer's settings.
        found: What :func:`benchmarks.gpu.stages.train` returns.

    Returns:
        ``planned`` seconds and GiB, their ``ratio`` (measured to planned), and ``constants``: what
        :class:`cpt_bench.advice.estimate.Assumed` would have to hold.
    """
    settings = Settings.model_validate(config.model_dump(mode="json"))
    model, gpu = Architecture.of(scale.facts), card.known(scale.device)
    target = scale.written if rewarded else ASSUMED.target
    assumed = ASSUMED._replace(words=scale.words, thought=scale.written, target=target)
    stage = estimate.stage(
        "drawn", scale.samples, scale.pixels, rewarded, settings, model, gpu, 1, assumed
    )
    longest = scale.words + estimate.picture(scale.pixels, settings, model) + target
    memory = estimate.memory(rewarded, settings, model, gpu, 1, longest)
    writing = found["rollouts"]["seconds a step"] if rewarded else 0.0
    training = found["seconds a step, rollouts left out"]
    train = stage.train_hours * 3600 / stage.steps
    rollouts = stage.rollout_hours * 3600 / stage.steps
    constants = {"use_training": assumed.use_training * train / training}
    if rewarded:
        # Only the quotient can be known without vLLM; reading the prompts is left in.
        speed = found["rollouts"]["tokens a second"]
        constants["decode / transformers"] = speed * model.parameters / assumed.decode_weights
    return {
        "gpu of the plan": gpu.name,
        "planned": {
            "seconds of training a step": train,
            "seconds of rollouts a step": rollouts,
            "gib": {**memory._asdict(), "total": memory.total},
        },
        "measured": {
            "seconds of training a step": training,
            "seconds of rollouts a step": writing,
            "gib": found["gib at most"],
        },
        "ratio": {
            "training": training / train,
            **({"rollouts": writing / rollouts} if rewarded else {}),
            "gib": found["gib at most"] / memory.total,
        },
        "assumed now": {
            "use_training": assumed.use_training,
            "decode / transformers": assumed.decode / assumed.transformers,
        },
        "constants": constants,
    }
