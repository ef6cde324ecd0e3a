"""Where things are: the repository, the tiny suite, and published data that is not shipped."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/support/tiny"
"""A suite of three tasks and one probe with a handful of samples each."""
WORDS = ROOT / "tests/support/words"
"""A suite of two tasks and one probe without pictures."""
STUDY = ROOT / "docs/study"
RECIPES = ROOT / "trainers/recipes"
PUBLISHED = ROOT.parent / "shared/data"
"""What others published, beside the repository; the tests that read it are skipped without it."""
