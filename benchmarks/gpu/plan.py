"""What ``cptbench plan`` says of a measured stage, and with which constants it would be right."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.gpu import card
from benchmarks.gpu.scale import Scale
from cpt_bench.advice import estimate
from cpt_bench.advice.estimate import ASSUMED, Settings
from cpt_bench.models.families.weights import Architecture


def longest_of(scale: Scale, settings: Settings, model: Architecture, target: float) -> float:
    """Tokens of the longest sequence that the scale can draw."""
    most = max(estimate.picture(pixels, settings, model) for pixels in scale.pixels)
    return scale.words[1] + most + target


def compare(
    scale: Scale, rewarded: bool, config: Any, found: dict[str, Any], steps: int
) -> dict[str, Any]:
    """The plan's figures for a stage beside what was measured.

    Args:
        scale: The sizes.
        rewarded: Whether it learned from rollouts.
        config: The trainer's settings.
        found: What :func:`benchmarks.gpu.stages.train` returns.
        steps: Steps for which tokens were read and written, one at least.

    Returns:
        ``planned`` seconds and GiB, their ``ratio`` (measured to planned), and ``constants``: what
        :class:`cpt_bench.advice.estimate.Assumed` would have to hold.
    """
    settings = Settings.model_validate(config.model_dump(mode="json"))
    model, gpu = Architecture.of(scale.facts), card.known(scale.device)
    target = scale.written if rewarded else ASSUMED.target
    sizes = scale.sizes(scale.samples)
    stages = [
        estimate.stage("drawn", scale.samples, pixels, rewarded, settings, model, gpu, 1, assumed)
        for pixels, words in sizes
        for assumed in [ASSUMED._replace(words=words, thought=scale.written, target=target)]
    ]
    longest = longest_of(scale, settings, model, target)
    memory = estimate.memory(rewarded, settings, model, gpu, 1, longest)
    tokens = found["tokens of all steps"] / steps
    planned = statistics.mean(s.trained / s.steps for s in stages)
    # A few steps do not draw all sizes alike: the plan's time is that of the tokens that passed.
    share = tokens / planned
    writing = found["rollouts"]["seconds a step"] if rewarded else 0.0
    training = found["seconds a step, rollouts left out"]
    train = statistics.mean(s.train_hours * 3600 / s.steps for s in stages) * share
    rollouts = statistics.mean(s.rollout_hours * 3600 / s.steps for s in stages)
    constants = {"use_training": ASSUMED.use_training * train / training}
    if rewarded:
        # Only the quotient can be known without vLLM; reading the prompts is left in.
        speed = found["rollouts"]["tokens a second"]
        constants["decode / transformers"] = speed * model.parameters / ASSUMED.decode_weights
    return {
        "gpu of the plan": gpu.name,
        "planned": {
            "seconds of training a step": train,
            "seconds of rollouts a step": rollouts,
            "tokens a step": planned,
            "gib": {**memory._asdict(), "total": memory.total},
        },
        "measured": {
            "seconds of training a step": training,
            "seconds of rollouts a step": writing,
            "tokens a step": tokens,
            "gib": found["gib at most in steps"],
        },
        "ratio": {
            "training": training / train,
            **({"rollouts": writing / rollouts} if rewarded else {}),
            "gib": found["gib at most in steps"] / memory.total,
        },
        "assumed now": {
            "use_training": ASSUMED.use_training,
            "decode / transformers": ASSUMED.decode / ASSUMED.transformers,
        },
        "constants": constants,
    }
