"""``study.yaml``: how a study names its methods, which it compares, in which colours it draws them.

These are facts of one study, and stay in its folder: the code that reads runs knows no method by
name. Which methods learn from rewards is not written there: it is seen in their runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError, explain

FILE: Final = "study.yaml"


class Ablation(BaseModel):
    """Two methods that differ in one thing.

    Attributes:
        first: The method with the change.
        second: The one without.
        what: The change, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: str
    second: str
    what: str


class About(BaseModel):
    """A study's facts about its methods; every part may be left out.

    Attributes:
        variants: Settings that make another method of a trainer, each with the value that needs no
            mention: a run with another value is called ``<trainer>-<value>``.
        names: Other names for methods.
        first: Methods that tables list first. Of each family, the taught and the rewarded, the
            first one is its plain one: every other method is compared with those two.
        titles: Of the figure's two panels: methods that are taught, methods that are rewarded.
        colours: Methods in the order in which each family takes its colours.
        ablations: Pairs that the page compares.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: dict[str, str] = {}
    names: dict[str, str] = {}
    first: tuple[str, ...] = ()
    titles: tuple[str, str] = ("taught", "rewarded")
    colours: tuple[str, ...] = ()
    ablations: tuple[Ablation, ...] = ()


def read_about(folder: Path) -> About:
    """A study's ``study.yaml``; a study may do without one.

    Raises:
        CptBenchError: The file is not such a file; the error names the key.
    """
    file = folder / FILE
    try:
        return About.model_validate(read_mapping(file)) if file.is_file() else About()
    except ValidationError as error:
        raise CptBenchError(explain(error), where=file) from None
