"""From a nano task's name, split and seed to canonical samples."""

from __future__ import annotations

import random

from cpt_bench.images import encode_ppm
from cpt_bench.suite import Sample
from cpt_bench.tasks.nano import world
from cpt_bench.tasks.nano.questions import GENERAL, OPTIONS, TASKS, Draft


def make(split: str, n: int, task: str, seed: int) -> list[Sample]:
    """The first ``n`` samples of a split.

    Every sample has its own random source, so that a shorter split is a prefix of a longer one
    and no split depends on another. Handwriting, photographs and easy-VQA pictures come from the
    split's own third of the originals.
    """
    maker = {**TASKS, **GENERAL}[task]
    samples = []
    for i in range(n):
        rng = random.Random(f"nano {seed} {task} {split} {i}")
        draft = maker(rng, split)
        samples.append(
            Sample(
                id=f"{task}-{split}-{i:05d}",
                question=draft.question,
                images=_images(draft, split, rng),
                answers=(draft.answer,),
                kind=answer_kind(draft.answer),
                rationale=draft.thought,
            )
        )
    return samples


def answer_kind(answer: str) -> str:
    """``letter``, ``yesno``, ``number`` or ``word``."""
    if answer in OPTIONS:
        return "letter"
    if answer in ("yes", "no"):
        return "yesno"
    return "number" if answer.isdigit() else "word"


def _images(draft: Draft, split: str, rng: random.Random) -> tuple[bytes, ...]:
    if draft.picture is not None:
        pixels = world.photograph(world.easy_vqa()[1][draft.picture], draft.light, rng)
    elif draft.cells is not None:
        pixels = world.paint(draft.cells, split, draft.light, rng)
    else:
        return ()
    return (encode_ppm(pixels.tobytes(), world.SIDE, world.SIDE),)
