"""``study.yaml``: what a study says of itself, its names for methods, its comparisons and colours.

These are facts of one study and belong in its folder: the code that reads runs names no method.
Which methods learn from rewards is not declared there; it is found from their runs.
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
        second: The method without it.
        what: A description of the change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: str
    second: str
    what: str


class About(BaseModel):
    """What is true of one study alone; every part is optional.

    Attributes:
        title: The page's title.
        scope: A sentence on the model that the study is about.
        limits: What the study can say, and what not; Markdown.
        more: What to do next, after the list of runs; Markdown.
        naming: Which settings of which trainer a method's name stands for.
        corner: Points learned and points lost, both positive, up to which the large panels of the
            figures show runs; a run beyond them has collapsed or stands alone.
        beside: The folder, next to this one, of another study that judges the same claims.
        bases: What other base models than the suite's own are called, by the digests of their
            weights; others are called by their digests.
        variants: Settings that turn a trainer into another method, each with its usual value: a
            run with another value is called ``<trainer>-<value>``.
        names: Other names for methods.
        first: Methods that tables list first. The first one of each family, the taught and the
            rewarded, is its baseline: every other method is compared with those two.
        titles: Titles of the figure's two panels: taught methods, rewarded methods.
        colours: Methods in the order in which each family assigns its colours.
        ablations: Pairs that the page compares.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = "What does RFT keep and SFT lose?"
    scope: str = ""
    limits: str = ""
    more: str = ""
    naming: str = "Where a name is a trainer's,"
    corner: tuple[float, float] = (16.0, 20.0)
    beside: str = ""
    bases: dict[str, str] = {}
    variants: dict[str, str] = {}
    names: dict[str, str] = {}
    first: tuple[str, ...] = ()
    titles: tuple[str, str] = ("taught", "rewarded")
    colours: tuple[str, ...] = ()
    ablations: tuple[Ablation, ...] = ()


def read_about(folder: Path) -> About:
    """A study's ``study.yaml``, which is optional.

    Raises:
        CptBenchError: The file is not valid; the message names the key.
    """
    file = folder / FILE
    try:
        return About.model_validate(read_mapping(file)) if file.is_file() else About()
    except ValidationError as error:
        raise CptBenchError(explain(error), where=file) from None
