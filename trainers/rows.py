"""Training samples in the form that TRL takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset

from cpt_bench.images import decode
from cpt_bench.suite.protocol import as_words
from cpt_bench.trainer import TrainSample


def dataset(
    samples: Sequence[TrainSample], row: Callable[[TrainSample], dict[str, Any]]
) -> Dataset:
    """A data set of ``samples`` whose rows are made when a batch asks for them.

    Args:
        samples: The samples of a stage.
        row: Makes a row of a sample; the sample's number is added to it as ``sample``.
    """
    numbers = Dataset.from_dict({"sample": list(range(len(samples)))})
    return numbers.with_transform(_Rows(samples, row))


class _Rows:
    """Makes the rows that a batch asks for."""

    def __init__(self, samples: Sequence[TrainSample], row: Callable[[TrainSample], Any]) -> None:
        self.samples, self.row = samples, row

    def __call__(self, asked: dict[str, list[int]]) -> dict[str, list[Any]]:
        # A prompt with several rollouts is asked for once for each, and made once.
        made = {i: {**self.row(self.samples[i]), "sample": i} for i in asked["sample"]}
        rows = [made[i] for i in asked["sample"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def __getstate__(self) -> int:
        # datasets pickles and hashes this to cache results; nothing is cached here.
        return len(self.samples)


def user_turn(sample: TrainSample) -> list[dict[str, Any]]:
    """The prompt as TRL takes it; TRL puts the images in front of the words."""
    system = [{"role": "system", "content": sample.system}] if sample.system else []
    return [*system, {"role": "user", "content": sample.prompt}]


def shown(sample: TrainSample) -> list[Any]:
    """The images of a sample as RGB pictures."""
    return [decode(image, sample.id) for image in sample.images]


def chat_row(sample: TrainSample, reply: str) -> dict[str, Any]:
    """Prompt, completion and images of a sample, in TRL's conversational form.

    Args:
        sample: The sample.
        reply: The reply to learn. Drawn from a policy, it may spell a special token in pieces,
            which the tokenizer would join.
    """
    return {
        "prompt": user_turn(sample),
        "completion": [{"role": "assistant", "content": as_words(reply)}],
        "images": shown(sample),
    }
