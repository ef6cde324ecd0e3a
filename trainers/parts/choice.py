"""Which parts a trainer's settings switch on."""

from __future__ import annotations

from cpt_bench.trainer import Stage
from cpt_bench.trainers.parts.cpo import CPO
from cpt_bench.trainers.parts.ewc import EWC
from cpt_bench.trainers.parts.lwf import LwF
from cpt_bench.trainers.parts.olora import OLoRA
from cpt_bench.trainers.parts.part import Part
from cpt_bench.trainers.parts.promptreplay import PromptReplay
from cpt_bench.trainers.parts.replay import Replay
from cpt_bench.trainers.parts.reset import Fire, ReDo
from cpt_bench.trainers.parts.settings import PartSettings


def parts_of(config: PartSettings, stage: Stage) -> list[Part]:
    """The parts that ``config`` switches on."""
    by_rate = getattr(config, "replay_choice", "uniform") == "pass_rate"
    switched: list[tuple[bool, type[Part]]] = [
        (config.replay > 0, PromptReplay if by_rate else Replay),
        (config.ewc > 0, EWC),
        (config.lwf > 0, LwF),
        (config.olora != "off", OLoRA),
        (config.cpo > 0, CPO),
        (config.reset == "redo", ReDo),
        (config.reset == "fire", Fire),
    ]
    return [part(config, stage) for on, part in switched if on]
