"""What a plan takes as given of a GPU: measured on such a card where it was, else assumed.

``measured.json`` holds what was measured: for each name of :data:`~cpt_bench.advice.estimate.GPUS`
the card's own name and its constants. ``python -m benchmarks.gpu.figures`` of the repository writes
it from the results of ``python -m benchmarks.gpu``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cpt_bench.advice.estimate import ASSUMED, Assumed
from cpt_bench.files import read_json

MEASURED = Path(__file__).with_name("measured.json")
OF_A_CARD = ("use_training", "use_prefill", "decode", "transformers", "start")
"""The constants that depend on the card; the others depend on the data."""


class Constants(NamedTuple):
    """A card's constants.

    Attributes:
        values: All that a plan takes as given.
        sources: For each that depends on the card: ``assumed``, or ``measured on <card>``.
    """

    values: Assumed
    sources: dict[str, str]


def constants(gpu: str, file: Path = MEASURED) -> Constants:
    """The constants of a GPU.

    Args:
        gpu: A key of :data:`~cpt_bench.advice.estimate.GPUS`.
        file: What was measured.
    """
    found = read_json(file).get(gpu, {"card": "", "constants": {}})
    measured = found["constants"]
    sources = {
        name: f"measured on {found['card']}" if name in measured else "assumed"
        for name in OF_A_CARD
    }
    return Constants(ASSUMED._replace(**measured), sources)
