"""Writes what follows from a study's runs: verdicts, figures, page."""

from __future__ import annotations

from pathlib import Path

from cpt_bench.files import write_text
from cpt_bench.study.claims import read_claims, write_claims
from cpt_bench.study.opening import Study
from cpt_bench.study.page import page


def build(study: Study) -> list[Path]:
    """Write verdicts, figures and page; the same stored runs give the same bytes."""
    from cpt_bench.study.figures import draw

    figures = draw(study.points, study.folder / "figures")
    write_claims(study.folder / "claims.yaml", list(study.claims))
    write_text(study.page, page(study, figures))
    drawn = [study.folder / "figures" / name for name in figures.values()]
    return [study.page, study.folder / "claims.yaml", *drawn]


def stale(study: Study) -> list[str]:
    """Differences between the written study and its runs; empty if it is up to date.

    Figures are not compared: another version of Matplotlib writes the same picture differently.
    """
    out = []
    for old, new in zip(read_claims(study.folder / "claims.yaml"), study.claims, strict=True):
        if old != new:
            now = f"it is {new.verdict} ({new.because})"
            out.append(f"{old.id}: was {old.verdict} ({old.because}); {now}")
    drawn = {f.stem: f.name for f in (study.folder / "figures").glob("*.svg")}
    text = study.page.read_text(encoding="utf-8") if study.page.is_file() else ""
    if text != page(study, drawn):
        out.append(f"{study.page}: does not match the stored runs")
    return out
